//! The worker's end of the channel: lines out from any thread, lines in on one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, mpsc};

use super::lock;
use crate::error::{Cause, Error, Kind, Result};
use crate::message::{Framer, FromWorker, Line, MAX_LINE, ToWorker};
use crate::sys::ancillary;

const READ_AT_ONCE: usize = 64 << 10;

/// What the master said to one `PROTEUS_LISTEN`.
type Answer = Result<OwnedFd, String>;

pub(super) struct Channel {
    socket: UnixStream,
    /// Held for a whole line, so that lines of several threads do not mix.
    writing: Mutex<()>,
    listens: Mutex<Listens>,
}

/// Who waits for which address, in the order of asking.
enum Listens {
    Open(HashMap<String, VecDeque<mpsc::Sender<Answer>>>),
    Ended,
}

/// What the reader tells the worker.
pub(super) enum Heard {
    Disconnect,
    /// The master is gone.
    End,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        let listens = Mutex::new(Listens::Open(HashMap::new()));
        Ok(Channel { socket, writing: Mutex::new(()), listens })
    }

    /// Writes one line, and waits while the channel is full.
    pub(super) fn send(&self, message: &FromWorker) -> Result<()> {
        let line = message.encode();
        if line.len() > MAX_LINE {
            return Err(Error::new(Kind::Setting, format!("a message of {} bytes is too long", line.len())));
        }
        let _whole = lock(&self.writing);
        let mut rest = &line[..];
        while !rest.is_empty() {
            match ancillary::send(self.socket.as_fd(), rest, None) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) => return Err(gone(Some(&error))),
            }
        }
        Ok(())
    }

    /// Asks the master for a listener at the address and waits for its descriptor.
    pub(super) fn listen(&self, address: &str) -> Result<OwnedFd> {
        let (answer, answered) = mpsc::channel();
        match &mut *lock(&self.listens) {
            Listens::Open(waiting) => waiting.entry(address.to_owned()).or_default().push_back(answer),
            Listens::Ended => return Err(gone(None)),
        }
        self.send(&FromWorker::Listen { address: address.to_owned() })?;
        match answered.recv() {
            Ok(Ok(fd)) => Ok(fd),
            Ok(Err(text)) => Err(Error::new(Kind::Start, format!("listen {address}: {text}"))),
            Err(mpsc::RecvError) => Err(gone(None)),
        }
    }

    /// Reads until the master is gone, and says so last.
    pub(super) fn read(&self, mut hear: impl FnMut(Heard)) {
        let (mut framer, mut fds) = (Framer::new(), VecDeque::new());
        let mut buffer = vec![0; READ_AT_ONCE];
        loop {
            match ancillary::receive(self.socket.as_fd(), &mut buffer) {
                Ok(received) if received.bytes > 0 => {
                    fds.extend(received.fds);
                    framer.push(&buffer[..received.bytes]);
                    self.take_lines(&mut framer, &mut fds, &mut hear);
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => {
                    log::error!("channel to the master: {}", Cause(&error));
                    break;
                }
            }
        }
        *lock(&self.listens) = Listens::Ended;
        hear(Heard::End);
    }

    fn take_lines(&self, framer: &mut Framer, fds: &mut VecDeque<OwnedFd>, hear: &mut impl FnMut(Heard)) {
        while let Some(line) = framer.next_line() {
            match line {
                Line::Text(text) => self.take_line(&text, fds, hear),
                Line::Oversize => log::warn!("a line of over {MAX_LINE} bytes from the master was dropped"),
            }
        }
    }

    fn take_line(&self, line: &[u8], fds: &mut VecDeque<OwnedFd>, hear: &mut impl FnMut(Heard)) {
        match ToWorker::parse(line) {
            Ok(ToWorker::Disconnect) => hear(Heard::Disconnect),
            Ok(ToWorker::Listening { address, outcome: Ok(()) }) => {
                let lost = || "the answer came without its descriptor".to_owned();
                self.answer(&address, fds.pop_front().ok_or_else(lost));
            }
            Ok(ToWorker::Listening { address, outcome: Err(text) }) => self.answer(&address, Err(text)),
            Ok(ToWorker::User(_)) => log::debug!("a message from the master has no listener"),
            Ok(ToWorker::Reserved(cmd)) => log::debug!("{cmd} from the master is not known here"),
            Err(garbage) => log::warn!("a line from the master was dropped: {garbage}"),
        }
    }

    /// To whoever asked first; an answer nobody waits for is dropped, and its descriptor closed.
    fn answer(&self, address: &str, answer: Answer) {
        let Listens::Open(waiting) = &mut *lock(&self.listens) else { return };
        let Some(queue) = waiting.get_mut(address) else { return };
        if let Some(first) = queue.pop_front() {
            // A thread that gave up is no fault: the descriptor closes here.
            let _ = first.send(answer);
        }
        if queue.is_empty() {
            waiting.remove(address);
        }
    }
}

/// Any failure of the channel is its end: half a line may have gone.
fn gone(cause: Option<&io::Error>) -> Error {
    match cause {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Error::new(Kind::Ended, format!("the master is gone: {}", Cause(error)))
        }
        _ => Error::new(Kind::Ended, "the master is gone"),
    }
}
