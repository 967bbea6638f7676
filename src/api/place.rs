//! A socket whose file is gone: it is reached through our descriptor alone.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Where the server listens.
pub(super) struct Place {
    /// Stays open while the server lives: its idea of its own path leads through this descriptor's number.
    _folder: File,
    socket: File,
}

impl Place {
    pub(super) fn take() -> io::Result<(Self, UnixListener)> {
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

    pub(super) fn connect(&self) -> io::Result<Socket> {
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

/// A new folder that is ours alone, for a moment; some place can be written to even in most read-only containers.
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
