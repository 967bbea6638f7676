//! `sd_notify`: each worker has a datagram socket of its own, so that a message counts as that
//! worker's even when its sender has already exited.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::journal;
use crate::supervisor::WorkerId;
use crate::sys::ancillary::{self, Sender};
use crate::sys::process;

/// Messages read from one socket in one turn of the loop.
const TURN: usize = 64;
/// systemd's own limit; a longer message is cut, and its whole lines still count.
const LONGEST: usize = 4096;

/// A worker's `NOTIFY_SOCKET`.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: Socket,
    name: String,
}

/// Who may speak for a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker {
    pub(super) pid: u32,
    pub(super) uid: u32,
}

/// Whether more messages may be waiting after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Drained,
    More,
}

impl NotifySocket {
    /// A socket in the abstract namespace, under a name that cannot be guessed.
    pub(super) fn bind(worker: WorkerId) -> io::Result<Self> {
        let secret = RandomState::new().build_hasher().finish();
        let name = format!("proteus/{}/{worker}/{secret:016x}", std::process::id());
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        ancillary::pass_credentials(socket.as_fd())?;
        socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
        Ok(NotifySocket { socket, name })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The value of `NOTIFY_SOCKET`: `@` stands for the abstract namespace.
    pub(super) fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// Reads for one turn; `ready` hears of each `READY=1` from the worker or a member of its group.
    pub(super) fn read(&self, speaker: Speaker, mut ready: impl FnMut()) -> Turn {
        let mut buffer = [0; LONGEST];
        for _ in 0..TURN {
            // Descriptors that come along are dropped with the message, and so closed.
            let Ok(received) = ancillary::receive(self.socket.as_fd(), &mut buffer) else {
                return Turn::Drained;
            };
            if received.truncated {
                journal::debug!(
                    "a message to {} was longer than {LONGEST} bytes, or carried too much; it is cut",
                    self.name
                );
            }
            let text = &buffer[..received.bytes];
            let says_ready = text.split(|&byte| byte == b'\n').any(|line| line == b"READY=1");
            if says_ready && received.sender.is_some_and(|sender| speaks_for(speaker, sender)) {
                ready();
            }
        }
        Turn::More
    }
}

/// A sender that has exited has no group to look at; the socket's own name speaks for it then.
fn speaks_for(speaker: Speaker, sender: Sender) -> bool {
    let user = sender.uid == speaker.uid || sender.uid == 0;
    // Pid 0 is a process outside our pid namespace: nobody's member.
    let group = sender.pid != 0 && process::group_of(sender.pid).is_none_or(|group| group == speaker.pid);
    user && (sender.pid == speaker.pid || group)
}
