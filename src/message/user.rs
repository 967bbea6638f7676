//! What users send each other: any JSON value.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use memchr::{memchr, memmem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::envelope::Envelope;
use super::{Garbage, MAX_LINE, is_reserved};
use crate::error::{Error, Kind, Result};

/// The field that holds the number of a request. A worker that sends it back with its reply can always be
/// understood; one that does not is understood by its `cmd`.
pub(super) const REQUEST: &str = "PROTEUS_REQUEST";

/// The field of a reply that says why there is none.
const FAILURE: &str = "PROTEUS_FAILURE";

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

    /// The request that this message asks or answers.
    pub(crate) fn request(&self) -> Option<u64> {
        self.request
    }

    /// Of a reply: why its worker has none.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.request.and_then(|_| self.value().get(FAILURE)).and_then(Value::as_str)
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
        let mut line = encode(value)?;
        if may_be_reserved(&line)
            && let Ok(Envelope { cmd: Some(cmd), .. }) = Envelope::read(&line)
            && is_reserved(&cmd)
        {
            return Err(Error::new(Kind::Message, format!("`cmd` {cmd:?} is reserved")));
        }
        line.push(b'\n');
        Ok(Outgoing { line })
    }
    /// A message that asks something, with the name by which workers know what.
    pub(crate) fn question(value: &(impl Serialize + ?Sized)) -> Result<(Self, String)> {
        let message = Outgoing::of(value)?;
        let cmd = Envelope::read(&message.line).ok().and_then(|envelope| envelope.cmd).map(Cow::into_owned);
        match cmd.filter(|cmd| !cmd.is_empty()) {
            Some(cmd) => within_limit(message.numbered(u64::MAX).len()).map(|()| (message, cmd)),
            None => Err(Error::new(Kind::Message, "a request is an object with a text under `cmd`")),
        }
    }

    /// The line of a question with the number of its request.
    pub(crate) fn numbered(&self, number: u64) -> Vec<u8> {
        // It is an object with at least a `cmd`.
        let open = self.line.strip_suffix(b"}\n").unwrap_or(&self.line);
        [open, format!(",\"{REQUEST}\":{number}}}\n").as_bytes()].concat()
    }
}

/// The reply of the library's workers: the value under `msg`, as the page that this project follows has it.
pub(crate) fn reply_line(cmd: &str, number: u64, value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    let head = format!("{{\"cmd\":{},\"{REQUEST}\":{number},\"msg\":", json!(cmd));
    let line = [head.as_bytes(), &encode(value)?, b"}\n"].concat();
    within_limit(line.len() - 1).map(|()| line)
}

/// A value as one line, without its newline.
fn encode(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    let refused = |error| Error::new(Kind::Message, format!("a message that is not JSON: {error}"));
    let mut line = Vec::with_capacity(128);
    serde_json::to_writer(&mut line, value).map_err(refused)?;
    // Raw values are written as they are, line ends included.
    if memchr(b'\n', &line).is_some() {
        line = serde_json::from_slice::<Value>(&line).map_err(refused)?.to_string().into_bytes();
    }
    within_limit(line.len()).map(|()| line)
}

fn within_limit(bytes: usize) -> Result<()> {
    if bytes > MAX_LINE {
        return Err(Error::new(
            Kind::Message,
            format!("a message of {bytes} bytes is over the limit of {MAX_LINE}"),
        ));
    }
    Ok(())
}

/// The reply of a handler that has none.
pub(crate) fn failure_line(cmd: &str, number: u64, text: &str) -> Vec<u8> {
    let reply = json!({ "cmd": cmd, FAILURE: text, REQUEST: number });
    format!("{reply}\n").into_bytes()
}

/// Whether it is worth a closer look. Our own encoder escapes no letters, so this misses nothing.
fn may_be_reserved(line: &[u8]) -> bool {
    memmem::find(line, b"\"PROTEUS_").is_some() || memmem::find(line, b"\"NODE_").is_some()
}
