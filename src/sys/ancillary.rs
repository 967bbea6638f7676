//! Descriptors and credentials beside the bytes of a unix socket.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{check, retry};

/// The most descriptors that Linux passes in one message (`SCM_MAX_FD`).
const MAX_FDS: u32 = 253;

const FD_SIZE: u32 = size_of::<RawFd>() as u32;

/// Room for that many descriptors and one set of credentials, in words so that headers are aligned.
const CONTROL_WORDS: usize = {
    // SAFETY: plain arithmetic.
    let bytes =
        unsafe { libc::CMSG_SPACE(MAX_FDS * FD_SIZE) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) };
    bytes as usize / size_of::<u64>() + 1
};

/// What one `recvmsg` brought.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes of the buffer that were filled; 0 is the end of a stream.
    pub(crate) bytes: usize,
    /// All descriptors that came, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Who sent it, where [`pass_credentials`] was asked for.
    pub(crate) sender: Option<Sender>,
    /// The datagram or its descriptors did not fit, and the rest is lost.
    pub(crate) truncated: bool,
}

/// The kernel's word on who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// 0 when the sender lives in a pid namespace that we cannot see.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Sends bytes, and a descriptor with the first of them. Returns how many bytes went; the descriptor went
/// when that is not 0.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0u64; 4];
    let mut message = header(&mut piece, &mut control);
    match fd {
        Some(fd) => attach(&mut message, fd),
        None => message.msg_controllen = 0,
    }
    // SAFETY: the header points at `piece` and `control`, which outlive the call; sendmsg only reads them.
    let sent =
        retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })?;
    Ok(sent.unsigned_abs())
}

/// Receives bytes and what travels beside them.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; CONTROL_WORDS];
    let mut message = header(&mut piece, &mut control);
    // SAFETY: the header points at `piece`, `buffer` and `control`, which outlive the call and are ours to write.
    let bytes =
        retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) })?;
    let (fds, sender) = unpack(&message);
    let truncated = message.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0;
    Ok(Received { bytes: bytes.unsigned_abs(), fds, sender, truncated })
}

/// The process that connected, or made the pair; 0 when we cannot see it.
pub(crate) fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    peer(socket).map(|peer| peer.pid)
}

/// A process at the other end of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerProcess {
    /// 0 when we cannot see it.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

/// Who connected, or made the pair, as it was then (`SO_PEERCRED`).
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<PeerProcess> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` has the size that `length` says, and both outlive the call.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    })?;
    Ok(PeerProcess { pid: peer.pid.unsigned_abs(), uid: peer.uid })
}

/// Asks the kernel to say who sent each message (`SO_PASSCRED`).
pub(crate) fn pass_credentials(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is an int, as the option asks, and outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

fn header(piece: &mut libc::iovec, control: &mut [u64]) -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr, whose padding differs between C libraries.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(control) as _;
    message
}

/// Writes one descriptor into the control buffer that `header` set.
fn attach(message: &mut libc::msghdr, fd: BorrowedFd<'_>) {
    // SAFETY: the control buffer of `send` has 32 bytes, and one descriptor takes CMSG_SPACE(4) = 24.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(FD_SIZE) as _;
        let first = libc::CMSG_FIRSTHDR(message);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(FD_SIZE) as _;
        ptr::write_unaligned(libc::CMSG_DATA(first).cast::<RawFd>(), fd.as_raw_fd());
    }
}

/// Takes everything out of a received control buffer; each descriptor is owned at once, so none can leak.
fn unpack(message: &libc::msghdr) -> (Vec<OwnedFd>, Option<Sender>) {
    let (mut fds, mut sender) = (Vec::new(), None);
    // SAFETY: the kernel wrote the buffer and its length; the macros stay inside of it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a non-null header points into the control buffer, which `message` keeps alive.
    while let Some(found) = unsafe { next.as_ref() } {
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => own_all(found, &mut fds),
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                // SAFETY: a message of this type holds one ucred.
                let who = unsafe { ptr::read_unaligned(libc::CMSG_DATA(found).cast::<libc::ucred>()) };
                sender = Some(Sender { pid: who.pid.unsigned_abs(), uid: who.uid, gid: who.gid });
            }
            _ => {}
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(message, found) };
    }
    (fds, sender)
}

fn own_all(found: &libc::cmsghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: plain arithmetic.
    let payload = found.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
    for index in 0..payload / size_of::<RawFd>() {
        // SAFETY: the payload holds that many descriptors, which the kernel has just made for this process
        // and nobody else has taken.
        fds.push(unsafe {
            let at = libc::CMSG_DATA(found).cast::<RawFd>().add(index);
            OwnedFd::from_raw_fd(ptr::read_unaligned(at))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn a_descriptor_travels_with_its_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut kept, given) = UnixStream::pair().unwrap();
        assert_eq!(send(a.as_fd(), b"hello", Some(given.as_fd())).unwrap(), 5);
        drop(given);
        let mut buffer = [0; 16];
        let mut received = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..received.bytes], b"hello");
        assert!(!received.truncated && received.sender.is_none());
        let fd = received.fds.pop().expect("one descriptor");
        assert!(received.fds.is_empty());
        // SAFETY: reads the flags of a descriptor that we own.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        UnixStream::from(fd).write_all(b"x").unwrap();
        let mut text = String::new();
        kept.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x", "the last copy was closed");
    }

    #[test]
    fn plain_bytes_and_the_end_bring_nothing_beside() {
        let (a, b) = UnixStream::pair().unwrap();
        send(a.as_fd(), b"x", None).unwrap();
        let mut buffer = [0; 16];
        let received = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((received.bytes, received.fds.len()), (1, 0));
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().bytes, 0);
        let gone = send(b.as_fd(), b"x", None).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe, "and no SIGPIPE");
    }

    #[test]
    fn credentials_name_the_sender() {
        let (a, b) = UnixDatagram::pair().unwrap();
        pass_credentials(b.as_fd()).unwrap();
        let (_kept, given) = UnixStream::pair().unwrap();
        send(a.as_fd(), b"READY=1", Some(given.as_fd())).unwrap();
        let received = receive(b.as_fd(), &mut [0; 3]).unwrap();
        let sender = received.sender.expect("credentials");
        assert_eq!(sender.pid, std::process::id());
        assert_eq!((received.bytes, received.fds.len()), (3, 1));
        assert!(received.truncated, "a datagram longer than the buffer");
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert_eq!(peer_pid(a.as_fd()).unwrap(), std::process::id());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_pid(file.as_fd()).is_err());
    }
}
