//! The HTTP server behind the gate: `tiny_http` on a socket that has no name, so that nobody but the gate can
//! reach it.
//!
//! What comes from outside never meets it raw: it has no time-outs and no limits, and dies of some requests.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use socket2::{Domain, SockAddr, Socket, Type};
use tiny_http::{Request, Server};

use super::routes::{self, Answer, Page, text};
use super::waiters::Waiters;
use crate::handle::Handle;
use crate::journal;

/// The server at work; it ends when dropped.
pub(super) struct Backend {
    place: Place,
    server: Option<Arc<Server>>,
    answering: Option<JoinHandle<()>>,
}

/// A socket whose file is gone: it is reached through our descriptor alone.
struct Place {
    /// Stays open while the server lives: its idea of its own path leads through this descriptor's number.
    _folder: File,
    socket: File,
}

impl Backend {
    pub(super) fn start(handle: &Handle, waiters: &Waiters) -> io::Result<Self> {
        let (place, listener) = Place::take()?;
        // It panics where it gets no thread.
        let server = catch_unwind(|| Server::from_listener(listener, None))
            .map_err(|_| io::Error::other("no thread for the HTTP server"))?
            .map_err(io::Error::other)?;
        let server = Arc::new(server);
        let (serving, handle, waiters) = (Arc::clone(&server), handle.clone(), waiters.clone());
        let mut backend = Backend { place, server: Some(server), answering: None };
        let answering = thread::Builder::new().name("proteus-api".into());
        backend.answering = Some(answering.spawn(move || answer_all(&serving, &handle, &waiters))?);
        Ok(backend)
    }

    /// A connection to it, which it may not have accepted yet.
    pub(super) fn connect(&self) -> io::Result<Socket> {
        self.place.connect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.unblock();
        }
        // First the thread that answers, then the server, which tells its accept thread to end; that one has to be
        // woken by us, since the server cannot find its own socket.
        if let Some(answering) = self.answering.take() {
            drop(answering.join());
        }
        self.server = None;
        drop(self.place.connect());
    }
}

impl Place {
    fn take() -> io::Result<(Self, UnixListener)> {
        let folder = private_folder()?;
        let taken = Place::within(&folder);
        // Everything stays reachable through the descriptors, and nothing is left behind however the master ends.
        drop(fs::remove_file(folder.join("api")));
        drop(fs::remove_dir(&folder));
        taken
    }

    fn within(path: &Path) -> io::Result<(Self, UnixListener)> {
        let folder = open_path(path)?;
        let name = through(&folder).join("api");
        let listener = UnixListener::bind(&name)?;
        let socket = open_path(&name)?;
        Ok((Place { _folder: folder, socket }, listener))
    }

    fn connect(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(through(&self.socket))?)?;
        Ok(socket)
    }
}

/// Takes hold of a file without opening it.
fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
}

fn through(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A new folder that is ours alone, for a moment; some place can be written to even in a read-only container.
fn private_folder() -> io::Result<PathBuf> {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places =
        run.into_iter().chain([std::env::temp_dir(), "/dev/shm".into(), "/run".into(), "/var/tmp".into()]);
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        let random = RandomState::new().build_hasher().finish();
        let folder = place.join(format!("proteus-{random:016x}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn answer_all(server: &Server, handle: &Handle, waiters: &Waiters) {
    // It ends when it is told to, or when the server has lost its accept thread.
    while let Ok(request) = server.recv() {
        let answered = catch_unwind(AssertUnwindSafe(|| answer(request, handle, waiters)));
        if answered.is_err() {
            journal::error!("control API: a panic while it answered; it goes on");
        }
    }
}

fn answer(mut request: Request, handle: &Handle, waiters: &Waiters) {
    match routes::answer(&mut request, handle) {
        Answer::Now(page) => send(request, page),
        Answer::Later(later) => match waiters.enter() {
            Some(place) => place.answer(request, later),
            None => send(request, text(503, "too many callers wait already")),
        },
    }
}

pub(super) fn send(request: Request, answer: Page) {
    if let Err(error) = request.respond(answer) {
        journal::debug!("control API: the caller has gone: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn the_private_socket_has_no_name_and_is_reached_all_the_same() {
        let (place, listener) = Place::take().unwrap();
        let name = listener.local_addr().unwrap().as_pathname().unwrap().to_owned();
        assert!(!name.exists(), "{}", name.display());
        let mut client = place.connect().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        drop(listener);
        assert_eq!(place.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
