//! Waiting for several descriptors at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::retry;

/// A descriptor, what to wait for, and afterwards what has come.
#[repr(transparent)]
pub(crate) struct Watched<'a> {
    entry: libc::pollfd,
    fd: std::marker::PhantomData<BorrowedFd<'a>>,
}

impl<'a> Watched<'a> {
    /// With neither, only the loss of the other end is told.
    pub(crate) fn new(fd: BorrowedFd<'a>, reads: bool, writes: bool) -> Self {
        let events = if reads { libc::POLLIN } else { 0 } | if writes { libc::POLLOUT } else { 0 };
        let entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        Watched { entry, fd: std::marker::PhantomData }
    }

    /// The end of what the other end sends is told, too: it may have gone, or have no more to say.
    pub(crate) fn and_half_close(mut self) -> Self {
        self.entry.events |= libc::POLLRDHUP;
        self
    }

    /// The other end sends nothing more.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.entry.revents & libc::POLLRDHUP != 0
    }

    /// The other end is gone for good.
    pub(crate) fn is_lost(&self) -> bool {
        self.entry.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Returns when something has come to one of them, or the time is over. The wait rounds up to milliseconds.
pub(crate) fn poll(watched: &mut [Watched<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let milliseconds = timeout
        .map_or(-1, |timeout| timeout.as_micros().div_ceil(1000).try_into().unwrap_or(libc::c_int::MAX));
    let count = watched.len() as libc::nfds_t;
    // SAFETY: `Watched` is a `pollfd` and nothing else, and the slice outlives the call.
    retry(|| unsafe { libc::poll(watched.as_mut_ptr().cast(), count, milliseconds) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn tells_who_is_lost_and_wakes_for_who_is_ready() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (quiet, mut other) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut watched = [
            Watched::new(ours.as_fd(), false, false),
            Watched::new(quiet.as_fd(), true, false),
            Watched::new(other.as_fd(), false, true),
        ];
        poll(&mut watched, None).unwrap();
        assert_eq!(watched.each_ref().map(Watched::is_lost), [true, false, false]);
        other.write_all(b"x").unwrap();
        let mut watched = [Watched::new(quiet.as_fd(), true, false)];
        let began = Instant::now();
        poll(&mut watched, Some(Duration::from_secs(60))).unwrap();
        assert!(!watched[0].is_lost() && began.elapsed() < Duration::from_secs(30));
    }
}
