//! Extended attributes of files.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether the file has an attribute of this name. Also of a file that is not open for reading.
pub(crate) fn has(file: BorrowedFd<'_>, name: &CStr) -> bool {
    // The number is followed to the file, which an `O_PATH` descriptor by itself does not allow.
    let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    // SAFETY: both strings end in NUL; without room the call only says how long the value is.
    unsafe { libc::getxattr(path.as_ptr().cast(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}
