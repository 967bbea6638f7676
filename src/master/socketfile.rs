//! Unix sockets in the file system: bound aside and renamed into place, so that clients never find
//! half a socket; a stale one is replaced, a live one respected, and only our own is removed.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::offload;
use crate::journal;

/// How long the removal of files is waited for: their file system may have stopped to answer since.
const REMOVAL: Duration = Duration::from_secs(1);

/// The file of a socket that we bound; removed when dropped, if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    place: Option<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    inode: (u64, u64),
}

/// Binds and listens at `path`. `mode` is set before the name appears.
pub(crate) fn bind(path: &Path, mode: Option<u32>, backlog: u32) -> io::Result<(Socket, SocketFile)> {
    let path = std::path::absolute(path)?;
    check_free(&path)?;
    let aside = aside(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&aside)?)?;
    let placed = place(&socket, &aside, &path, mode, backlog);
    if placed.is_err() {
        drop(fs::remove_file(&aside)); // the first error is the one to tell
    }
    Ok((socket, placed?))
}

fn place(
    socket: &Socket,
    aside: &Path,
    path: &Path,
    mode: Option<u32>,
    backlog: u32,
) -> io::Result<SocketFile> {
    if let Some(mode) = mode {
        fs::set_permissions(aside, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let metadata = fs::symlink_metadata(aside)?;
    fs::rename(aside, path)?;
    let place = Place { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) };
    Ok(SocketFile { place: Some(place) })
}

/// A name beside `path` that nobody else uses, short enough for a socket address.
fn aside(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let random = RandomState::new().build_hasher().finish();
    Ok(folder.join(format!(".{:08x}", random & 0xffff_ffff)))
}

/// Refuses a path that is somebody's file or a socket that somebody listens on.
fn check_free(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Connected, or its queue is full: somebody is there.
        Ok(()) | Err(_) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "address in use: another process listens there"))
        }
    }
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
}

/// Removes files, all at a time, and waits for it; never for long.
pub(crate) fn remove_all(files: impl IntoIterator<Item = SocketFile>) {
    let places = files.into_iter().filter_map(|mut file| file.place.take());
    let removals: Vec<(PathBuf, Receiver<Removed>)> =
        places.map(|place| (place.path.clone(), place.remove_aside())).collect();
    let until = Instant::now() + REMOVAL;
    for (path, removed) in removals {
        if removed.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
            journal::warn!(
                "{}: its file system does not answer, the socket may be left there",
                path.display()
            );
        }
    }
}

struct Removed;

impl Place {
    fn remove_aside(self) -> Receiver<Removed> {
        let (done, removed) = channel();
        // Where no thread can be had the file stays; the next bind replaces it.
        drop(offload::start(move || {
            self.remove();
            drop(done.send(Removed)); // nobody may be waiting
        }));
        removed
    }

    fn remove(&self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.inode) {
            drop(fs::remove_file(&self.path)); // nobody is left to tell; the next bind replaces a stale one
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        remove_all(self.place.take().map(|place| SocketFile { place: Some(place) }));
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

    #[test]
    fn replaces_a_stale_socket_and_removes_its_own() {
        let path = folder("stale").join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_socket, file) = bind(&path, Some(0o600), 8).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn respects_live_sockets_and_files() {
        let folder = folder("live");
        let live = folder.join("live.sock");
        let _listener = UnixListener::bind(&live).unwrap();
        assert_eq!(bind(&live, None, 8).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = folder.join("file");
        fs::write(&file, "precious").unwrap();
        assert!(bind(&file, None, 8).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn a_successor_keeps_its_socket() {
        let path = folder("successor").join("s.sock");
        let (socket, file) = bind(&path, None, 8).unwrap();
        drop(socket); // shutting down: nobody listens, the file is still there
        let (_next, next_file) = bind(&path, None, 8).unwrap();
        drop(file);
        UnixStream::connect(&path).expect("the first one's end left the second one's file");
        drop(next_file);
    }
}
