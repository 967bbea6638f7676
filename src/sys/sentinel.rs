//! Listeners under watch: a process that shares one can end it for all by `shutdown(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, retry};

/// Readable once a listener that it watches has been shut down, and for nothing else: a connection that comes wakes
/// nobody here.
#[derive(Debug)]
pub(crate) struct Sentinel(OwnedFd);

impl Sentinel {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: makes a descriptor from nothing.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made it for us.
        Ok(Sentinel(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a listener for as long as any process has it, also when its descriptor here is closed. Where the kernel
    /// has no room for that, nothing is heard of it.
    pub(crate) fn watch(&self, listener: BorrowedFd<'_>) {
        drop(self.try_watch(listener)); // it is looked at when a worker is started, too
    }

    fn try_watch(&self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let events = (libc::EPOLLRDHUP | libc::EPOLLET).cast_unsigned();
        let mut event = libc::epoll_event { events, u64: 0 };
        let (fd, operation) = (self.0.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(fd, operation, listener.as_raw_fd(), &raw mut event) }).map(drop)
    }

    /// Forgets what it has to tell, and says whether there was something.
    pub(crate) fn take(&self) -> bool {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
        let room = libc::c_int::try_from(events.len()).unwrap_or(1);
        let mut told = false;
        // SAFETY: room for as many events as are asked for.
        while retry(|| unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, 0) })
            .is_ok_and(|count| count > 0)
        {
            told = true;
        }
        told
    }
}

impl AsFd for Sentinel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the listener has been shut down: no connection comes to it any more.
pub(crate) fn is_shut_down(listener: BorrowedFd<'_>) -> bool {
    let mut watched = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    let looked = retry(|| unsafe { libc::poll(&raw mut watched, 1, 0) });
    looked.is_ok() && watched.revents & (libc::POLLHUP | libc::POLLRDHUP) != 0
}

/// A TCP socket that was shut down, as new as it can be. A second `shutdown(2)` leaves a mark on it that it would hand on:
/// whatever it accepted once it listens again would be at its end from the start.
pub(crate) fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is as long as is said, and outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::accept::readable;
    use socket2::SockRef;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::time::Duration;

    fn hears(sentinel: &Sentinel) -> bool {
        readable(sentinel.as_fd(), Duration::ZERO).unwrap()
    }

    #[test]
    fn hears_of_a_shutdown_and_of_no_connection() {
        let sentinel = Sentinel::new().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let name =
            SocketAddr::from_abstract_name(format!("proteus-sentinel-{}", std::process::id())).unwrap();
        let unix = UnixListener::bind_addr(&name).unwrap();
        sentinel.watch(tcp.as_fd());
        sentinel.watch(unix.as_fd());
        let _clients = (
            TcpStream::connect(tcp.local_addr().unwrap()).unwrap(),
            UnixStream::connect_addr(&name).unwrap(),
        );
        assert!(!hears(&sentinel) && !is_shut_down(tcp.as_fd()) && !is_shut_down(unix.as_fd()));
        let ends: [(BorrowedFd<'_>, Shutdown); 2] =
            [(tcp.as_fd(), Shutdown::Read), (unix.as_fd(), Shutdown::Both)];
        for (listener, how) in ends {
            SockRef::from(&listener).shutdown(how).unwrap();
            assert!(hears(&sentinel) && is_shut_down(listener));
            assert!(sentinel.take() && !hears(&sentinel) && !sentinel.take());
        }
        // The same one again, once it listens again.
        SockRef::from(&tcp).bind(&tcp_address()).unwrap();
        SockRef::from(&tcp).listen(1).unwrap();
        assert!(!is_shut_down(tcp.as_fd()));
        SockRef::from(&tcp).shutdown(Shutdown::Both).unwrap();
        assert!(hears(&sentinel) && is_shut_down(tcp.as_fd()));
    }

    #[test]
    fn a_listener_that_was_shut_down_twice_can_be_mended() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        SockRef::from(&tcp).shutdown(Shutdown::Both).unwrap();
        SockRef::from(&tcp).shutdown(Shutdown::Both).unwrap_err();
        disconnect(tcp.as_fd()).unwrap();
        SockRef::from(&tcp).bind(&address.into()).unwrap();
        SockRef::from(&tcp).listen(1).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut stream, _) = tcp.accept().unwrap();
        client.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }

    /// A port that was chosen by the system is given back by the shutdown.
    fn tcp_address() -> socket2::SockAddr {
        "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()
    }
}
