//! Descriptors that this process was born with.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::parent_id;

use super::ancillary::peer_pid;
#[cfg(feature = "logger")]
use super::ancillary::send;
use super::{check, process};

/// Where the systemd convention puts the first passed descriptor.
const FIRST_LISTENER: RawFd = 3;

/// Takes a descriptor over as the channel if it is a socket that our parent made; `None` for anything else,
/// such as the number that a worker's own child finds in the environment it inherited.
pub(crate) fn channel(number: RawFd) -> Option<OwnedFd> {
    let descriptor = adopt(number).ok()?;
    if peer_pid(descriptor.as_fd()).ok()? != parent_id() {
        return None;
    }
    close_on_exec(number).ok()?;
    Some(descriptor.take())
}

/// The channel as [`channel`] would take it, to be written to before that.
#[cfg(feature = "logger")]
pub(crate) fn early_channel(number: RawFd) -> Option<EarlyChannel> {
    let descriptor = adopt(number).ok()?;
    (peer_pid(descriptor.as_fd()).ok()? == parent_id()).then_some(EarlyChannel(number))
}

/// The number of a descriptor that was found to be the channel.
#[cfg(feature = "logger")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct EarlyChannel(RawFd);

#[cfg(feature = "logger")]
impl EarlyChannel {
    /// Writes whole lines. One that cannot be written has nobody to be told of it: the master is gone.
    pub(crate) fn send(self, mut lines: &[u8]) {
        // SAFETY: it is not -1; should the program have closed it, the call fails and nothing else.
        let socket = unsafe { BorrowedFd::borrow_raw(self.0) };
        while !lines.is_empty() {
            let Ok(sent) = send(socket, lines, None) else { return };
            lines = &lines[sent..];
        }
    }
}

/// Whether the passed descriptors are for this process: by its pid (`LISTEN_PID`) and, since systemd 258, also by the
/// number that no other process ever has (`LISTEN_PIDFDID`), where the kernel knows such.
pub(crate) fn listeners_are_ours() -> bool {
    let says = |key, own: u64| std::env::var(key).is_ok_and(|text| text.parse() == Ok(own));
    let by_number = match (std::env::var_os("LISTEN_PIDFDID"), process::own_number()) {
        (Some(_), Some(own)) => says("LISTEN_PIDFDID", own),
        (Some(_), None) | (None, _) => true,
    };
    says("LISTEN_PID", std::process::id().into()) && by_number
}

/// Takes over the passed listeners, from descriptor 3 on. To be called once in a process.
///
/// What closes at an exec did not come through one: it is this process's own, opened since, and not there to take.
pub(crate) fn listeners(count: usize) -> io::Result<Vec<OwnedFd>> {
    let numbers = (FIRST_LISTENER..).take(count);
    let found = numbers.map(|number| {
        let descriptor = adopt(number)?;
        if descriptor.closes_on_exec {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        close_on_exec(number)?;
        Ok(descriptor)
    });
    let all: io::Result<Vec<Adopted>> = found.collect();
    Ok(all?.into_iter().map(Adopted::take).collect())
}

/// An open descriptor, not ours to close before all checks have passed.
struct Adopted {
    number: RawFd,
    closes_on_exec: bool,
}

fn adopt(number: RawFd) -> io::Result<Adopted> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: asks for flags; a closed number is an error.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    Ok(Adopted { number, closes_on_exec: flags & libc::FD_CLOEXEC != 0 })
}

impl Adopted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was open a moment ago, is not -1, and is only looked at.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    fn take(self) -> OwnedFd {
        // SAFETY: it was open at birth and given to this process for this use by its parent, by the environment's
        // word; the callers take each number once.
        unsafe { OwnedFd::from_raw_fd(self.number) }
    }
}

fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_a_socket_of_the_parent_is_the_channel() {
        let (mine, _other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for number in [mine.as_raw_fd(), file.as_raw_fd(), -1, 1_000_000] {
            assert!(channel(number).is_none(), "{number}");
        }
        mine.set_nonblocking(true).expect("still open");
    }

    #[test]
    fn what_this_process_opened_itself_was_not_passed() {
        let _ours: Vec<_> = (0..64).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert_eq!(listeners(64).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
