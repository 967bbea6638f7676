//! Accepting from a socket that other processes accept from too, without touching its shared flags.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::{check, retry};

/// What the kernel lets a queue hold by default (`net.core.somaxconn`).
const DEFAULT_QUEUE: usize = 4096;

/// Accepts one connection, close-on-exec and blocking. EINTR comes back: the caller may have been told to stop.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: null addresses are allowed, and ask for nothing.
    let fd = check(unsafe {
        libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), libc::SOCK_CLOEXEC)
    })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until there is something to read, or the time is over. The wait rounds up to milliseconds.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let milliseconds = timeout.as_micros().div_ceil(1000).try_into().unwrap_or(libc::c_int::MAX);
    let mut watched = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    Ok(retry(|| unsafe { libc::poll(&raw mut watched, 1, milliseconds) })? > 0)
}

/// How many connections wait in the listener's queue; where the kernel does not say (unix sockets), as many as
/// it may hold.
pub(crate) fn queued(listener: BorrowedFd<'_>) -> usize {
    /// `tcpi_unacked` is the seventh word of `tcp_info`; of a listener it is the length of the accept queue.
    const UNACKED: usize = 6;
    let mut info = [0u32; UNACKED + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes `length` bytes at most.
    let asked = check(unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    });
    match asked {
        Ok(_) if length as usize == size_of_val(&info) => info[UNACKED] as usize,
        _ => DEFAULT_QUEUE,
    }
}

/// From now on the kernel refuses newcomers at once; what waits in the queue, and handshakes under way, can be
/// accepted as before, and nobody who waits for connections hears of it.
///
/// The listener is bound to a network interface that cannot be: the kernel finds no listener for a new connection.
/// (`shutdown(2)` would make `accept` fail in every process that has the listener: Go and Node programs end of that,
/// Python's loop in circles.) Only a privileged process can undo it.
pub(crate) fn refuse_newcomers(listener: BorrowedFd<'_>) -> io::Result<()> {
    /// From Linux 5.1 on, for everybody from 5.7 on. Not in the libc crate; elsewhere than on the few machines
    /// where it has another number, 62.
    const SO_BINDTOIFINDEX: libc::c_int = 62;
    /// Interfaces are numbered from 1 on.
    static NOWHERE: libc::c_int = libc::c_int::MAX;
    // SAFETY: the kernel reads one integer of ours.
    check(unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BINDTOIFINDEX,
            (&raw const NOWHERE).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Waits for connections on a non-blocking listener.
///
/// The listener is added before each wait and removed after it, so that the waiter goes to the tail of the
/// kernel's queue each time: one that stays registered takes every connection.
#[derive(Debug)]
pub(crate) struct Turnstile(OwnedFd);

impl Turnstile {
    /// `bell` ends every wait once it is readable.
    pub(crate) fn new(bell: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: makes a descriptor from nothing.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made it for us.
        let turnstile = Turnstile(unsafe { OwnedFd::from_raw_fd(fd) });
        turnstile.control(libc::EPOLL_CTL_ADD, bell, libc::EPOLLIN)?;
        Ok(turnstile)
    }

    /// Returns when a connection waits, or the bell rings, or for no reason.
    pub(crate) fn wait(&self, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, listener, libc::EPOLLIN | libc::EPOLLEXCLUSIVE)?;
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for the one event that is asked for.
        let waited = retry(|| unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, -1) });
        self.control(libc::EPOLL_CTL_DEL, listener, 0)?;
        waited.map(drop)
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>, events: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 0 };
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_queue_of_a_tcp_listener_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(queued(listener.as_fd()), 0);
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(readable(listener.as_fd(), Duration::ZERO).unwrap());
        assert_eq!(queued(listener.as_fd()), clients.len());
        accept(listener.as_fd()).unwrap();
        assert_eq!(queued(listener.as_fd()), 2);
    }

    #[test]
    fn that_of_a_unix_listener_is_not() {
        let directory = std::env::temp_dir().join(format!("proteus-queue-{}", std::process::id()));
        let listener = UnixListener::bind(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        assert_eq!(queued(listener.as_fd()), DEFAULT_QUEUE);
    }

    #[test]
    fn newcomers_are_refused_and_the_queue_is_served() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            let early: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            refuse_newcomers(listener.as_fd()).unwrap();
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            for mut client in early {
                let mut stream = TcpStream::from(accept(listener.as_fd()).unwrap());
                stream.write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            assert!(!readable(listener.as_fd(), Duration::ZERO).unwrap(), "no error either");
        }
    }

    #[test]
    fn the_bell_ends_a_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let turnstile = Turnstile::new(ours.as_fd()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        turnstile.wait(listener.as_fd()).unwrap();
        accept(listener.as_fd()).unwrap();
        drop(theirs);
        turnstile.wait(listener.as_fd()).unwrap();
    }
}
