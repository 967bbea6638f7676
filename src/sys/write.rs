//! Writing to a descriptor that others may have made non-blocking.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::retry;

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

/// Whether it takes a piece (of `PIPE_BUF` bytes, if it is a pipe) at this moment.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    poll_writable(fd, 0).is_ok_and(|ready| ready == 1)
}

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    poll_writable(fd, -1).map(drop)
}

fn poll_writable(fd: BorrowedFd<'_>, milliseconds: libc::c_int) -> io::Result<libc::c_int> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, valid for the whole call.
    retry(|| unsafe { libc::poll(&raw mut poll, 1, milliseconds) })
}
