//! `sd_notify`: each worker has a datagram socket of its own, so that a message counts as that
//! worker's even when its sender has already exited.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::journal;
use crate::journal::throttle::Throttle;
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
    /// Messages that were cut.
    cut: Throttle,
}

/// What a message says; of several things in one, the first comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Ready,
    /// Its serving loop still turns.
    Alive,
    /// It stops by its own wish, or because it was told to.
    Stopping,
    /// What it does, in its own words.
    Status(String),
    /// It needs so long from now to start or to stop.
    NeedsTime(Duration),
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
        Ok(NotifySocket { socket, name, cut: Throttle::default() })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The value of `NOTIFY_SOCKET`: `@` stands for the abstract namespace.
    pub(super) fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// Reads for one turn what the worker or a member of its group says.
    pub(super) fn read(&mut self, speaker: Speaker, mut hear: impl FnMut(Said)) -> Turn {
        let mut buffer = [0; LONGEST];
        for _ in 0..TURN {
            // Descriptors that come along are dropped with the message, and so closed.
            let Ok(received) = ancillary::receive(self.socket.as_fd(), &mut buffer) else {
                return Turn::Drained;
            };
            if received.truncated
                && let Some(count) = self.cut.count(Instant::now(), 1)
            {
                journal::debug!(
                    "messages to {} that were longer than {LONGEST} bytes, or carried too much, and were cut: {count}",
                    self.name
                );
            }
            if received.sender.is_some_and(|sender| speaks_for(speaker, sender)) {
                parse(&buffer[..received.bytes]).into_iter().for_each(&mut hear);
            }
        }
        Turn::More
    }
}

/// The assignments of one message. `RELOADING=1`, `MAINPID`, `FDSTORE`, `BARRIER` and the like need nothing
/// from us; whoever waits at a barrier sees its descriptor closed with the message.
fn parse(message: &[u8]) -> Vec<Said> {
    let mut all: Vec<Said> = message.split(|&byte| byte == b'\n').filter_map(Said::parse).collect();
    // Repeats in one message say nothing more, and the order in it has no meaning.
    all.sort();
    all.dedup();
    all
}

impl Said {
    fn parse(line: &[u8]) -> Option<Self> {
        let equals = line.iter().position(|&byte| byte == b'=')?;
        let value = &line[equals + 1..];
        match &line[..equals] {
            b"READY" => (value == b"1").then_some(Said::Ready),
            b"WATCHDOG" => (value == b"1").then_some(Said::Alive),
            b"STOPPING" => (value == b"1").then_some(Said::Stopping),
            b"STATUS" => Some(Said::Status(String::from_utf8_lossy(value).into_owned())),
            b"EXTEND_TIMEOUT_USEC" => {
                let microseconds = str::from_utf8(value).ok()?.parse().ok()?;
                Some(Said::NeedsTime(Duration::from_micros(microseconds)))
            }
            _ => None,
        }
    }
}

/// A sender that has exited has no group to look at; the socket's own name speaks for it then.
fn speaks_for(speaker: Speaker, sender: Sender) -> bool {
    let user = sender.uid == speaker.uid || sender.uid == 0;
    // Pid 0 is a process outside our pid namespace: nobody's member.
    let group = sender.pid != 0 && process::group_of(sender.pid).is_none_or(|group| group == speaker.pid);
    user && (sender.pid == speaker.pid || group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_says() {
        let time = |micros| Said::NeedsTime(Duration::from_micros(micros));
        let status = |text: &str| Said::Status(text.into());
        let table: [(&[u8], &[Said]); 12] = [
            (b"WATCHDOG=1\nREADY=1\nWATCHDOG=trigger", &[Said::Ready, Said::Alive]),
            (b"READY=1", &[Said::Ready]),
            (b"STATUS=half way\nREADY=1\n", &[Said::Ready, status("half way")]),
            (b"EXTEND_TIMEOUT_USEC=5000000\nSTOPPING=1", &[Said::Stopping, time(5_000_000)]),
            (b"READY=1\nREADY=1\nREADY=1", &[Said::Ready]),
            (b"STATUS=", &[status("")]),
            (b"STATUS=a=b\xff", &[status("a=b\u{fffd}")]),
            (b"READY=0\nREADY=11\n READY=1\nready=1\nREADY", &[]),
            (b"RELOADING=1\nMONOTONIC_USEC=1", &[]),
            (b"MAINPID=1\nFDSTORE=1\nBARRIER=1\nERRNO=2", &[]),
            (b"EXTEND_TIMEOUT_USEC=-1\nEXTEND_TIMEOUT_USEC=x\nEXTEND_TIMEOUT_USEC=99999999999999999999", &[]),
            (b"\0\0\n\n=\n==", &[]),
        ];
        for (message, expected) in table {
            assert_eq!(parse(message), expected, "{}", message.escape_ascii());
        }
    }
}
