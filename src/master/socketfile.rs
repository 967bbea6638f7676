//! Unix sockets in the file system: bound aside and linked into place, so that clients never find half a
//! socket; a stale one is replaced, a live one respected, and only our own is removed.
//!
//! The file has a spare name beside it, `.NAME.spare`: a socket whose last name is gone can never get another,
//! so a name that somebody removes is linked back from there.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::offload;
use super::socketlock::SocketLock;
use super::socketpath::PathAddress;
use crate::error::Cause;
use crate::journal;
use crate::sys::ancillary::peer_pid;
use crate::sys::inotify::{Inotify, WatchId};

/// How long the removal of files is waited for: their file system may have stopped to answer since.
const REMOVAL: Duration = Duration::from_secs(1);

/// Who may connect: whose the file is, and its permission bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) mode: Mode,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// How it was bound.
#[derive(Clone, Copy, Debug)]
struct Terms {
    access: Access,
    backlog: u32,
}

/// The permission bits of a socket's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What the umask leaves.
    #[default]
    Umask,
    Exactly(u32),
    /// These beside what the umask leaves.
    AtLeast(u32),
}

/// The file of a socket that we bound; removed when dropped, if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    place: Option<Arc<Place>>,
    /// By which the loop hears that something happened to it.
    watch: Option<WatchId>,
}

/// Where a socket's file is, and which it is.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// `None` where the file system knows no second names.
    spare: Option<PathBuf>,
    inode: (u64, u64),
    terms: Terms,
    /// Held by whoever changes the names, so that none comes back that has just been removed.
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    InUse,
    Removed,
}

/// What a look at a socket's file has found, and done.
#[derive(Debug)]
pub(crate) enum Found {
    AsItWas,
    /// The name was gone, or led to a dead socket.
    LinkedBack,
    /// It leads to what is somebody else's.
    Replaced(io::Error),
    /// The spare name is gone as well, or there was none: nobody can connect any more.
    Lost,
    Failed(io::Error),
}

/// Binds and listens at `path`. The file is as `access` wants it before its name appears.
pub(crate) fn bind(
    path: &Path,
    access: Access,
    backlog: u32,
    news: Option<&Inotify>,
) -> io::Result<(Socket, SocketFile)> {
    let path = std::path::absolute(path)?;
    let _lock = SocketLock::take(&path);
    check_free(&path)?;
    let spare = spare_of(&path)?;
    check_free(&spare)?;
    let aside = aside(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(PathAddress::of(&aside)?.address())?;
    // As long as it is ours and can be read.
    let watch = news.and_then(|news| news.watch(&aside).ok());
    let placed = set_access(&aside, access).and_then(|inode| {
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        place(&aside, path, spare, inode, Terms { access, backlog })
    });
    if placed.is_err() {
        drop(fs::remove_file(&aside)); // the first error is the one to tell
    }
    Ok((socket, SocketFile { place: Some(Arc::new(placed?)), watch }))
}

/// Puts the file where clients look for it. Each of its names comes from its own first one, so that whoever does
/// the same at the same time gets none of ours.
fn place(aside: &Path, path: PathBuf, spare: PathBuf, inode: (u64, u64), terms: Terms) -> io::Result<Place> {
    let spare = match link(aside, &path) {
        Ok(()) => fs::rename(aside, &spare).map(|()| Some(spare))?,
        // No second names here, or not for us.
        Err(_) => fs::rename(aside, &path).map(|()| None)?,
    };
    Ok(Place { path, spare, inode, terms, stage: Mutex::new(Stage::InUse) })
}

/// Sets what the file is to have, of this very file, and says which it is.
fn set_access(path: &Path, Access { mode, uid, gid }: Access) -> io::Result<(u64, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(not_a_socket());
    }
    let itself = itself(&file);
    let bits = match mode {
        Mode::Umask => None,
        Mode::Exactly(bits) => Some(bits),
        Mode::AtLeast(bits) => Some(metadata.permissions().mode() & 0o777 | bits),
    };
    if let Some(bits) = bits {
        fs::set_permissions(&itself, fs::Permissions::from_mode(bits))?;
    }
    if uid.is_some() || gid.is_some() {
        chown(&itself, uid, gid).map_err(|error| {
            let why = format!("its file cannot be given to that user or group: {}", Cause(&error));
            io::Error::new(error.kind(), why)
        })?;
    }
    Ok((metadata.dev(), metadata.ino()))
}

/// A way to the file that nobody can bend.
fn itself(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// Gives the file one more name, in the place of what has that name now.
fn link(file: &Path, name: &Path) -> io::Result<()> {
    let aside = aside(name)?;
    fs::hard_link(file, &aside)?;
    fs::rename(&aside, name).inspect_err(|_| drop(fs::remove_file(&aside))) // the first error is the one to tell
}

/// A name beside another that nobody else uses.
fn aside(path: &Path) -> io::Result<PathBuf> {
    let random = RandomState::new().build_hasher().finish() & 0xffff_ffff;
    hidden(path, &format!("{random:08x}"))
}

/// The second name of a socket's file: the same each time, so that what a killed master leaves is found.
fn spare_of(path: &Path) -> io::Result<PathBuf> {
    hidden(path, "spare")
}

/// `.NAME.WHAT` in the folder of a file.
fn hidden(path: &Path, what: &str) -> io::Result<PathBuf> {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    hidden.push(format!(".{what}"));
    Ok(path.with_file_name(hidden))
}

/// Refuses a path that is somebody's file or a socket that somebody listens on.
fn check_free(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        return Err(not_a_socket());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    let who = match probe.connect(PathAddress::of(path)?.address()) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) => peer_pid(probe.as_fd()).ok().filter(|pid| *pid != 0),
        // Its queue is full: somebody is there.
        Err(_) => None,
    };
    let who = who.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("address in use: {who} listens there")))
}

fn not_a_socket() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket")
}

impl SocketFile {
    /// Removes the file beside the caller, who does not wait for it.
    pub(crate) fn discard(mut self) {
        drop(self.place.take().map(Place::remove_aside));
    }

    /// The same now; that it is done is made sure of when this is dropped.
    pub(crate) fn begin_removal(&self) {
        drop(self.place.clone().map(Place::remove_aside));
    }

    pub(crate) fn place(&self) -> Option<&Arc<Place>> {
        self.place.as_ref()
    }

    /// Where it is, and the news by which the loop hears of it.
    pub(crate) fn watched(&self) -> Option<(WatchId, &Arc<Place>)> {
        Some((self.watch?, self.place.as_ref()?))
    }
}

/// Removes files, all at a time, and waits for it; never for long.
pub(crate) fn remove_all(files: impl IntoIterator<Item = SocketFile>) {
    let places = files.into_iter().filter_map(|mut file| file.place.take());
    let removals: Vec<(PathBuf, Receiver<Gone>)> =
        places.map(|place| (place.path.clone(), place.remove_aside())).collect();
    let until = Instant::now() + REMOVAL;
    for (path, gone) in removals {
        if gone.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
            journal::warn!(
                "{}: its file system does not answer, the socket may be left there",
                path.display()
            );
        }
    }
}

/// The file has been removed, as far as it could be.
struct Gone;

impl Place {
    /// Another socket here, as this one was: this one is dead, and its names are given up. May sleep in the kernel.
    pub(crate) fn bind_anew(&self, news: Option<&Inotify>) -> io::Result<(Socket, SocketFile)> {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Removed;
        bind(&self.path, self.terms.access, self.terms.backlog, news)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether clients still find the socket, and links it back if they do not. May sleep in the kernel.
    pub(crate) fn look(&self) -> Found {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match *stage {
            Stage::Removed => Found::AsItWas,
            Stage::InUse => self.mend().unwrap_or_else(Found::Failed),
        }
    }

    fn mend(&self) -> io::Result<Found> {
        let _lock = SocketLock::take(&self.path);
        let spare = self.spare.as_deref();
        if self.is_ours(&self.path)? {
            // The spare one may be the one that is gone.
            if let Some(spare) = spare
                && !self.is_ours(spare)?
            {
                link(&self.path, spare)?;
            }
            return Ok(Found::AsItWas);
        }
        if let Err(theirs) = check_free(&self.path) {
            return Ok(Found::Replaced(theirs));
        }
        match spare {
            Some(spare) if self.is_ours(spare)? => link(spare, &self.path).map(|()| Found::LinkedBack),
            Some(_) | None => Ok(Found::Lost),
        }
    }

    fn is_ours(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == self.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_aside(self: Arc<Self>) -> Receiver<Gone> {
        let (done, gone) = channel();
        // Where no thread can be had the file stays; the next bind replaces it.
        drop(offload::start(move || {
            self.remove();
            drop(done.send(Gone)); // nobody may be waiting
        }));
        gone
    }

    fn remove(&self) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        *stage = Stage::Removed;
        let _lock = SocketLock::take(&self.path);
        for name in [Some(&self.path), self.spare.as_ref()].into_iter().flatten() {
            if self.is_ours(name).unwrap_or(false) {
                drop(fs::remove_file(name)); // nobody is left to tell; the next bind replaces a stale one
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        remove_all(self.place.take().map(|place| SocketFile { place: Some(place), watch: None }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("proteus-socket-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    const MINE: Access = Access { mode: Mode::Exactly(0o600), uid: None, gid: None };

    fn bind_plain(path: &Path) -> io::Result<(Socket, SocketFile)> {
        bind(path, Access::default(), 8, None)
    }

    /// What lies in the folder of a file.
    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_a_stale_socket_and_removes_its_own() {
        let path = folder("stale").join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_socket, file) = bind(&path, MINE, 8, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(&path), [".s.sock.spare", "s.sock"]);
        drop(file);
        assert!(names(&path).is_empty());
    }

    #[test]
    fn respects_live_sockets_and_files() {
        let folder = folder("live");
        let live = folder.join("live.sock");
        let _listener = UnixListener::bind(&live).unwrap();
        assert_eq!(bind_plain(&live).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = folder.join("file");
        fs::write(&file, "precious").unwrap();
        assert!(bind_plain(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    /// What each of many has come to who do the same at the same time.
    fn at_once<T: Send>(what: impl Fn() -> T + Sync) -> Vec<T> {
        let start = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            let run = || {
                start.wait();
                what()
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn one_of_many_who_take_a_path_at_once_has_it() {
        let path = folder("at-once").join("s.sock");
        for round in 0..100 {
            if round % 2 == 1 {
                drop(UnixListener::bind(&path).unwrap()); // what a killed one leaves
            }
            let (taken, refused): (Vec<_>, Vec<_>) =
                at_once(|| bind_plain(&path)).into_iter().partition(Result::is_ok);
            assert_eq!(taken.len(), 1, "round {round}");
            for refusal in refused.into_iter().filter_map(Result::err) {
                assert_eq!(refusal.kind(), io::ErrorKind::AddrInUse, "{refusal}");
                assert!(refusal.to_string().contains(&format!("pid {}", std::process::id())), "{refusal}");
            }
            UnixStream::connect(&path).expect("the one who has it");
        }
    }

    #[test]
    fn a_folder_that_somebody_holds_holds_up_nobody_for_long() {
        let path = folder("held").join("s.sock");
        let holder = File::open(path.parent().unwrap()).unwrap();
        holder.lock().unwrap();
        let began = Instant::now();
        let (_socket, file) = bind_plain(&path).unwrap();
        drop(file);
        assert!(began.elapsed() < Duration::from_secs(10) && names(&path).is_empty());
    }

    #[test]
    fn a_successor_keeps_its_socket() {
        let path = folder("successor").join("s.sock");
        let (socket, file) = bind_plain(&path).unwrap();
        drop(socket); // shutting down: nobody listens, the file is still there
        let (_next, next_file) = bind_plain(&path).unwrap();
        drop(file);
        UnixStream::connect(&path).expect("the first one's end left the second one's file");
        drop(next_file);
    }

    #[test]
    fn a_name_that_is_gone_comes_back() {
        let path = folder("gone").join("s.sock");
        let spare = path.with_file_name(".s.sock.spare");
        let (_socket, file) = bind_plain(&path).unwrap();
        let place = Arc::clone(file.place.as_ref().unwrap());
        assert!(matches!(place.look(), Found::AsItWas));
        fs::remove_file(&path).unwrap();
        assert!(matches!(place.look(), Found::LinkedBack));
        UnixStream::connect(&path).expect("the same socket");
        fs::remove_file(&spare).unwrap();
        assert!(matches!(place.look(), Found::AsItWas) && spare.exists());
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(place.look(), Found::LinkedBack), "a dead socket gives way");
        UnixStream::connect(&path).expect("the same socket");
        fs::remove_file(&path).unwrap();
        let _live = UnixListener::bind(&path).unwrap();
        assert!(matches!(place.look(), Found::Replaced(_)), "a live one does not");
        fs::remove_file(&path).unwrap();
        fs::remove_file(&spare).unwrap();
        assert!(matches!(place.look(), Found::Lost));
        drop(file);
        assert!(matches!(place.look(), Found::AsItWas), "nothing comes back after the end");
        assert!(names(&path).is_empty());
    }

    /// `sun_path` ends after 107 bytes; the names beside the socket's own are longer, and so may its folder be.
    #[test]
    fn paths_of_any_length() {
        let short = folder("long");
        let fits = |bytes: usize| short.join("x".repeat(bytes - short.as_os_str().len() - 1));
        let long = short.join("y".repeat(100));
        fs::create_dir(&long).unwrap();
        for path in [fits(107), fits(106), long.join("a.sock")] {
            let (_socket, file) = bind_plain(&path).unwrap();
            assert_eq!(bind_plain(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "a live one");
            let address = PathAddress::of(&path).unwrap();
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.connect(address.address()).unwrap();
            drop(file);
            assert!(!path.exists());
        }
    }

    #[test]
    fn bits_beside_those_of_the_umask() {
        let path = folder("bits").join("s.sock");
        let umask = {
            let (_socket, _file) = bind_plain(&path).unwrap();
            fs::metadata(&path).unwrap().permissions().mode() & 0o777
        };
        let access = Access { mode: Mode::AtLeast(0o222), ..Access::default() };
        let (_socket, _file) = bind(&path, access, 8, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, umask | 0o222);
    }
}
