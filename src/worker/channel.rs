//! The worker's end of the channel: lines out from any thread, lines in on one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};

use super::lock;
use super::writer::{Writer, gone};
use crate::error::{Cause, Error, Kind, Result};
use crate::message::{Framer, FromWorker, Line, MAX_LINE, Message, ToWorker};
use crate::sys::ancillary;

const READ_AT_ONCE: usize = 64 << 10;

/// What the master said to one `PROTEUS_LISTEN`.
type Answer = Result<OwnedFd, String>;

pub(super) struct Channel {
    socket: Arc<UnixStream>,
    writer: Arc<Writer>,
    reader: Mutex<Reader>,
    listens: Mutex<Listens>,
}

/// Held by the thread that reads.
struct Reader {
    framer: Framer,
    /// Descriptors that came, until the lines that announce them.
    fds: VecDeque<OwnedFd>,
    buffer: Vec<u8>,
}

/// Who waits for which address, in the order of asking.
enum Listens {
    Open(HashMap<String, VecDeque<mpsc::Sender<Answer>>>),
    Ended,
}

/// What the reader tells the worker.
pub(super) enum Heard {
    Disconnect,
    Message(Message),
}

/// Whether there may be more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Goes,
    /// The master is gone.
    Ended,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        let socket = Arc::new(socket);
        let reader = Reader { framer: Framer::new(), fds: VecDeque::new(), buffer: vec![0; READ_AT_ONCE] };
        Ok(Channel {
            writer: Arc::new(Writer::new(Arc::clone(&socket))),
            socket,
            reader: Mutex::new(reader),
            listens: Mutex::new(Listens::Open(HashMap::new())),
        })
    }

    /// Takes one line of the library's own, and waits while the channel is full.
    pub(super) fn send(&self, message: &FromWorker) -> Result<()> {
        let line = message.encode();
        if line.len() > MAX_LINE {
            return Err(Error::new(Kind::Message, format!("a line of {} bytes is too long", line.len())));
        }
        self.writer.send(&line)
    }

    /// Takes a line that is ready, and waits while the channel is full.
    pub(super) fn send_line(&self, line: &[u8]) -> Result<()> {
        self.writer.send(line)
    }

    /// Where lines of the log leave.
    #[cfg(feature = "logger")]
    pub(super) fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// Waits until everything that was taken has gone.
    pub(super) fn flush(&self) {
        self.writer.flush();
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

    /// Waits for the master to say something, and passes it on.
    pub(super) fn read(&self, hear: &mut impl FnMut(Heard)) -> Stream {
        let mut reader = lock(&self.reader);
        let Reader { framer, fds, buffer } = &mut *reader;
        match ancillary::receive(self.socket.as_fd(), buffer) {
            Ok(received) if received.bytes > 0 => {
                fds.extend(received.fds);
                framer.push(&buffer[..received.bytes]);
                self.take_lines(framer, fds, hear);
                return Stream::Goes;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => log::error!("channel to the master: {}", Cause(&error)),
        }
        *lock(&self.listens) = Listens::Ended;
        self.writer.end();
        Stream::Ended
    }

    fn take_lines(&self, framer: &mut Framer, fds: &mut VecDeque<OwnedFd>, hear: &mut impl FnMut(Heard)) {
        while let Some(line) = framer.next_line() {
            match line {
                Line::Text(text) => self.take_line(text, fds, hear),
                Line::Oversize(_) => {
                    log::warn!("a line of over {MAX_LINE} bytes from the master was dropped");
                }
            }
        }
    }

    fn take_line(&self, line: Vec<u8>, fds: &mut VecDeque<OwnedFd>, hear: &mut impl FnMut(Heard)) {
        match ToWorker::parse(line) {
            Ok(ToWorker::Disconnect) => hear(Heard::Disconnect),
            Ok(ToWorker::Listening { address, outcome: Ok(()) }) => {
                let lost = || "the answer came without its descriptor".to_owned();
                self.answer(&address, fds.pop_front().ok_or_else(lost));
            }
            Ok(ToWorker::Listening { address, outcome: Err(text) }) => self.answer(&address, Err(text)),
            Ok(ToWorker::User(message)) => hear(Heard::Message(message)),
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
