//! The pid file: locked while the master lives, and never anybody else's file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::offload;
use crate::error::{Error, Kind, Result};

/// The lock is the file's own; it goes with the process, however that ends.
#[derive(Debug)]
pub(super) struct PidFile {
    /// Until it is dropped.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: File,
}

/// A master that ends removes its file between our open and our lock; then we look again.
const TRIES: usize = 16;
/// More than any pid needs: a longer file is not a pid file.
const LONGEST: u64 = 32;
/// How long the end of the master waits for the file's removal.
const REMOVAL: Duration = Duration::from_secs(1);

impl PidFile {
    /// Creates or takes over the file at `path`, locks it, and writes our pid.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| failed(path, error))?;
        for _ in 0..TRIES {
            let mut file = open(&path)?;
            check_regular(&path, &file)?;
            let old = read(&path, &mut file)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(locked(&path, &old)),
                Err(TryLockError::Error(error)) => return Err(failed(&path, error)),
            }
            if is_still_at(&path, &file) {
                let written = write_pid(&file).map_err(|error| failed(&path, error));
                // Where this failed the file is removed again, as at the end of the master's life.
                let taken = PidFile { held: Some(Held { path, file }) };
                return written.map(|()| taken);
            }
        }
        Err(Error::new(Kind::Start, format!("pid file {}: it keeps being replaced", path.display())))
    }
}

fn open(path: &Path) -> Result<File> {
    // Neither a symlink nor a FIFO may lead or hold us elsewhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags)
        .open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => {
            refused(path, "it is a symbolic link, which could lead the master to overwrite any file")
        }
        Some(libc::EISDIR) => refused(path, "it is a directory"),
        Some(libc::ENXIO) => refused(path, "it is not a regular file"),
        _ => failed(path, error),
    })
}

fn check_regular(path: &Path, file: &File) -> Result<()> {
    let metadata = file.metadata().map_err(|error| failed(path, error))?;
    if metadata.is_file() { Ok(()) } else { Err(refused(path, "it is not a regular file")) }
}

/// What the file holds: nothing, or a pid. Anything else is somebody's data.
fn read(path: &Path, file: &mut File) -> Result<String> {
    let mut text = Vec::new();
    Read::by_ref(file).take(LONGEST + 1).read_to_end(&mut text).map_err(|error| failed(path, error))?;
    let text = String::from_utf8(text).unwrap_or_else(|_| "?".to_owned());
    let pid = text.trim();
    if text.len() as u64 <= LONGEST && pid.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(pid.to_owned())
    } else {
        Err(refused(path, "it holds something other than a pid; it is left as it is"))
    }
}

fn is_still_at(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn locked(path: &Path, holder: &str) -> Error {
    let holder = if holder.is_empty() { "another process".to_owned() } else { format!("pid {holder}") };
    Error::new(Kind::InUse, format!("pid file {}: locked by {holder}, which is running", path.display()))
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(Kind::Start, format!("pid file {}: {why}", path.display()))
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::start(format_args!("pid file {}", path.display()), error)
}

/// Nobody is left to tell; a stale file is harmless, since its lock is gone. Its file system may not answer.
impl Drop for PidFile {
    fn drop(&mut self) {
        let Some(Held { path, file }) = self.held.take() else { return };
        offload::within(REMOVAL, move || {
            if is_still_at(&path, &file) {
                drop(fs::remove_file(&path));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("proteus-pidfile-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn holds_the_pid_while_it_lives_and_goes_with_it() {
        let path = folder("lives").join("pid");
        for content in [None, Some(""), Some("1\n"), Some("12345678901")] {
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let held = PidFile::take(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            let second = PidFile::take(&path).unwrap_err();
            assert!(second.is_in_use());
            assert!(
                second.to_string().contains(&format!("locked by pid {}", std::process::id())),
                "{second}"
            );
            drop(held);
            assert!(!path.exists());
        }
    }

    #[test]
    fn leaves_what_is_not_its_own() {
        let folder = folder("foreign");
        let data = folder.join("data");
        fs::write(&data, "precious").unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let cases = [(data.as_path(), "other than a pid"), (&link, "symbolic link"), (&folder, "directory")];
        for (path, cause) in cases {
            let error = PidFile::take(path).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(fs::read_to_string(&data).unwrap(), "precious");
    }

    #[test]
    fn a_file_put_in_our_place_stays() {
        let path = folder("replaced").join("pid");
        let held = PidFile::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
    }
}
