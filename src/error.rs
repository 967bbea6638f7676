//! The one error type: opaque, with the thing, the cause and a few predicates.

use std::fmt;
use std::io;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: one line that names the thing (path, address, key, pid) and the cause.
///
/// `Debug` prints the same line as `Display`, so that `fn main() -> proteus_cluster::Result<Exit>`
/// ends readably.
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A setting that cannot be: unknown key, wrong type, out of range.
    Setting,
    /// The program, an address, a file: the start itself failed.
    Start,
    /// The pid file or an address is held by somebody else.
    InUse,
    /// The cluster has ended, or the master is gone.
    Ended,
    /// The worker's closure failed.
    Worker,
    /// Asked for something that this process or cluster does not have.
    Unknown,
    /// It did not come in time.
    TimedOut,
    /// A message that cannot be sent, or does not fit what it is read as.
    Message,
    /// A request of the same name is still running.
    Busy,
    /// A worker's queue is full.
    Full,
    /// A worker is gone, or was told to go.
    Gone,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    pub(crate) fn setting(message: impl Into<String>) -> Self {
        Error::new(Kind::Setting, message)
    }

    /// `thing: cause`, with the cause kept as the source; an address or a lock in use is told apart.
    pub(crate) fn start(thing: impl fmt::Display, cause: io::Error) -> Self {
        let kind = if cause.kind() == io::ErrorKind::AddrInUse { Kind::InUse } else { Kind::Start };
        Error { kind, message: format!("{thing}: {}", Cause(&cause)), source: Some(Box::new(cause)) }
    }

    pub(crate) fn ended() -> Self {
        Error::new(Kind::Ended, "the cluster has ended")
    }

    pub(crate) fn worker(cause: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Error { kind: Kind::Worker, message: format!("the worker failed: {cause}"), source: Some(cause) }
    }

    /// The same for one more who is to hear it.
    pub(crate) fn again(&self) -> Self {
        let cause = self.io().map(|cause| match cause.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(cause.kind(), cause.to_string()),
        });
        Error { kind: self.kind, message: self.message.clone(), source: cause.map(Into::into) }
    }

    /// The system's own error behind this one.
    pub(crate) fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()?.downcast_ref()
    }

    /// A setting was refused.
    pub fn is_setting(&self) -> bool {
        self.kind == Kind::Setting
    }

    /// The pid file is locked or an address is taken by another process.
    pub fn is_in_use(&self) -> bool {
        self.kind == Kind::InUse
    }

    /// The cluster (seen from a `Handle`) or the master (seen from a `Worker`) is gone.
    pub fn is_ended(&self) -> bool {
        self.kind == Kind::Ended
    }

    /// A message was refused for what it is: its `cmd` is reserved, it is too long, it does not fit.
    pub fn is_message(&self) -> bool {
        self.kind == Kind::Message
    }

    /// A request was refused: replies could not be told from those to an earlier one of the same name.
    pub fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }

    /// A worker does not read its messages, and no more of them are kept for it.
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    /// A worker (seen from the master) is gone, or was told to disconnect.
    pub fn is_gone(&self) -> bool {
        self.kind == Kind::Gone
    }

    /// The answer did not come in time.
    pub fn is_timeout(&self) -> bool {
        self.kind == Kind::TimedOut
    }
}

/// An `io::Error` without Rust's `(os error 2)`, and with a small first letter as the rest of our lines.
pub(crate) struct Cause<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut letters = text.chars();
        match letters.next() {
            Some(first) => write!(f, "{}{}", first.to_lowercase(), letters.as_str()),
            None => Ok(()),
        }
    }
}

/// What a panic says of itself.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}
