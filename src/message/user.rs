//! What users send each other: any JSON value.

use std::fmt;
use std::sync::OnceLock;

use memchr::{memchr, memmem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::envelope::Envelope;
use super::{Garbage, MAX_LINE, is_reserved};
use crate::error::{Error, Kind, Result};

/// The field that holds the number of a request. A worker that sends it back with its reply can always be
/// understood; one that does not is understood by its `cmd`.
pub(super) const REQUEST: &str = "PROTEUS_REQUEST";

/// A message between the master and a worker: one JSON value.
///
/// Values that are objects with a text under `cmd` are routed to the listeners of that name.
#[derive(Clone)]
pub struct Message {
    /// Known to be sound JSON.
    line: Vec<u8>,
    cmd: Option<Box<str>>,
    request: Option<u64>,
    value: OnceLock<Value>,
}

impl Message {
    /// Takes a line without its newline.
    pub(crate) fn parse(line: Vec<u8>) -> Result<Self, Garbage> {
        let envelope = Envelope::read(&line).map_err(|error| Garbage(format!("not JSON: {error}")))?;
        let (cmd, request) = (envelope.cmd.map(|cmd| cmd.into_owned().into_boxed_str()), envelope.request);
        Ok(Message { line, cmd, request, value: OnceLock::new() })
    }

    /// As it came.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The text under `cmd`, where the value is an object that has one.
    pub fn cmd(&self) -> Option<&str> {
        self.cmd.as_deref()
    }

    /// The value; read from its line when it is first asked for.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| {
            let mut value = serde_json::from_slice(&self.line).unwrap_or_default();
            if let (Some(_), Value::Object(fields)) = (self.request, &mut value) {
                fields.remove(REQUEST);
            }
            value
        })
    }

    /// The value as a type of the program's own.
    ///
    /// Fails with [`is_message`](Error::is_message) where it does not fit.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        let read = match self.request {
            None => serde_json::from_slice(&self.line),
            Some(_) => T::deserialize(self.value()),
        };
        read.map_err(|error| Error::new(Kind::Message, format!("the message does not fit: {error}")))
    }

    /// Whether it is this text and nothing else, which takes no reading.
    pub(crate) fn is_text(&self, text: &str) -> bool {
        let line = self.line.trim_ascii();
        line.len() == text.len() + 2 && line[1..=text.len()] == *text.as_bytes() && line[0] == b'"'
    }

    /// What it takes of memory while it waits.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.line.capacity() + self.cmd.as_ref().map_or(0, |cmd| cmd.len())
    }
}

impl PartialEq for Message {
    /// Messages are equal when their values are.
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(self.value()).finish()
    }
}

/// A user's value as a line, ready to go.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// With its newline.
    pub(crate) line: Vec<u8>,
}

impl Outgoing {
    /// Refuses what may not be sent: a reserved `cmd`, a line over the limit, a value that JSON cannot hold.
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        let refused = |text: String| Err(Error::new(Kind::Message, text));
        let mut line = Vec::with_capacity(128);
        if let Err(error) = serde_json::to_writer(&mut line, value) {
            return refused(format!("a message that is not JSON: {error}"));
        }
        // Raw values are written as they are, line ends included.
        if memchr(b'\n', &line).is_some() {
            let value: serde_json::Result<Value> = serde_json::from_slice(&line);
            line =
                value.map_err(|error| Error::new(Kind::Message, error.to_string()))?.to_string().into_bytes();
        }
        if line.len() > MAX_LINE {
            return refused(format!("a message of {} bytes is over the limit of {MAX_LINE}", line.len()));
        }
        if may_be_reserved(&line)
            && let Ok(Envelope { cmd: Some(cmd), .. }) = Envelope::read(&line)
            && is_reserved(&cmd)
        {
            return refused(format!("`cmd` {cmd:?} is reserved"));
        }
        line.push(b'\n');
        Ok(Outgoing { line })
    }
}

/// Whether it is worth a closer look. Our own encoder escapes no letters, so this misses nothing.
fn may_be_reserved(line: &[u8]) -> bool {
    memmem::find(line, b"\"PROTEUS_").is_some() || memmem::find(line, b"\"NODE_").is_some()
}
