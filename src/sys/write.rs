//! Writing to a descriptor that others may have made non-blocking.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, retry};

/// Writes what the descriptor takes, at least a byte, and waits for that however the descriptor is set.
pub(crate) fn write_waiting(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is `bytes.len()` long and outlives the call, which only reads it.
        let written = retry(|| unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) });
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_writable(fd)?,
            written => return written.map(isize::unsigned_abs),
        }
    }
}

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, valid for the whole call.
    let polled = retry(|| unsafe { libc::poll(&raw mut poll, 1, -1) });
    check(polled?).map(drop)
}
