//! File systems that do not answer, in a mount namespace of the test's own.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{skipped, sys};

/// Plays a test on a thread whose mounts nobody else sees, and which go with it.
pub(crate) fn with_own_mounts(test: &'static str, play: impl FnOnce() + Send + 'static) {
    let played = std::thread::spawn(move || match sys::unshare_mounts() {
        Ok(()) if Path::new("/dev/fuse").exists() => play(),
        Ok(()) => skipped(test, "there is no /dev/fuse here"),
        Err(error) => skipped(test, &format!("no mount namespace here: {error}")),
    });
    if let Err(panic) = played.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A mount on which every call sleeps: whoever serves it never answers.
pub(crate) struct DeadMount {
    at: CString,
    _server: File,
}

impl DeadMount {
    pub(crate) fn over(folder: &Path) -> io::Result<Self> {
        let server = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let at = CString::new(folder.as_os_str().as_bytes()).expect("no NUL");
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        sys::mount(c"fuse", &at, &CString::new(data).expect("no NUL"))?;
        Ok(DeadMount { at, _server: server })
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        sys::unmount(&self.at);
    }
}
