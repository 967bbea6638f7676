//! What users send each other: any JSON value.

use std::fmt;
use std::sync::OnceLock;

use memchr::{memchr, memchr2, memmem};
use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::{self, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::envelope::Envelope;
use super::fields::{field, find, number, text};
use super::mend::{MAX_DEPTH, is_too_deep, mend};
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
        let mut line = line;
        let (cmd, request) = match Envelope::read(&line) {
            Ok(envelope) => (envelope.cmd.map(|cmd| cmd.into_owned().into_boxed_str()), envelope.request),
            Err(_) => read_with_care(&mut line).map_err(|garbage| Garbage::seen(&line, garbage.reason))?,
        };
        Ok(Message { line, cmd, request, value: OnceLock::new() })
    }

    /// As it came, without its newline.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The text under `cmd`, where the value is an object that has one.
    pub fn cmd(&self) -> Option<&str> {
        self.cmd.as_deref()
    }

    /// The value; read from its line when it is first asked for. Its objects sort their keys: whoever wants the
    /// message as it came serializes the message itself, or reads it by [`to`](Message::to).
    ///
    /// Nesting goes to 512 levels, which takes half a megabyte of stack to read (a whole one in a debug build). Half
    /// a letter, such as `\ud83d` alone, is U+FFFD.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| {
            let mut value = read(&self.line).unwrap_or_default();
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
            None => read(&self.line),
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
    pub(crate) fn failure(&self) -> Option<String> {
        self.request.and_then(|_| field(&self.line, FAILURE)).and_then(text)
    }

    /// What it takes of memory while it waits.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.line.capacity() + self.cmd.as_ref().map_or(0, |cmd| cmd.len())
    }
}

/// What the JSON library refuses, and is JSON all the same. The depth of it costs no stack here.
fn read_with_care(line: &mut [u8]) -> Result<(Option<Box<str>>, Option<u64>), Garbage> {
    let not_json = |error: &dyn fmt::Display| Garbage::new(format!("not JSON: {error}"));
    str::from_utf8(line).map_err(|error| not_json(&error))?;
    mend(line)?;
    let (read, [cmd, request]) = find(line, ["cmd", REQUEST]);
    read.map_err(|error| not_json(&error))?;
    Ok((cmd.and_then(text).map(String::into_boxed_str), request.and_then(number)))
}

/// A line that is known to be sound, and so to be no deeper than it may be.
pub(super) fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    reader.disable_recursion_limit();
    T::deserialize(&mut reader)
}

/// What can be known of a line that is dropped, by its beginning: its `cmd`, and the number of its request.
pub(super) fn glimpse(head: &[u8]) -> (Option<String>, Option<u64>) {
    let (_, [cmd, request]) = find(head, ["cmd", REQUEST]);
    (cmd.and_then(text), request.and_then(number))
}

/// A message serializes as it came, its keys in their order and its numbers to the digit: `/sync_send` answers so,
/// and `send_message(&message)` sends it on. Into JSON only.
impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.request {
            Some(_) => self.value().serialize(serializer),
            None => read::<&RawValue>(&self.line).map_err(ser::Error::custom)?.serialize(serializer),
        }
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
            && let (Some(cmd), _) = glimpse(&line)
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
        let (cmd, _) = glimpse(&message.line);
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
    // Raw values are written as they are, line ends included: between values, since texts have them escaped.
    if memchr(b'\n', &line).is_some() {
        line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
    if is_too_deep(&line) {
        return Err(Error::new(Kind::Message, format!("a message nested deeper than {MAX_DEPTH} levels")));
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

/// Whether it is worth a closer look. The encoder escapes no letters; a line that came from elsewhere may.
fn may_be_reserved(line: &[u8]) -> bool {
    // Most have neither of the letters that it takes.
    let parts = [&b"\"PROTEUS_"[..], b"\"NODE_", b"\\u"];
    memchr2(b'_', b'\\', line).is_some() && parts.iter().any(|part| memmem::find(line, part).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Message, Garbage> {
        Message::parse(line.as_bytes().to_vec())
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    /// As deep as they may be, on the stack that a thread has by itself.
    #[test]
    fn depth_has_a_limit_of_our_own() {
        for depth in [127, 128, 129, MAX_DEPTH] {
            let message = parse(&nested(depth)).unwrap();
            assert_eq!(message.value().to_string(), nested(depth));
            assert!(Outgoing::of(message.value()).is_ok() && Outgoing::of(&message).is_ok());
            assert_eq!(message.clone(), message);
        }
        assert_eq!(parse(&nested(MAX_DEPTH + 1)).unwrap_err().to_string(), "nested deeper than 512 levels");
        assert!(parse(&"[".repeat(1_000_000)).is_err());
        let mut value = json!(1);
        for _ in 0..=MAX_DEPTH {
            value = json!([value]);
        }
        assert!(Outgoing::of(&value).unwrap_err().is_message());
        assert!(reply_line("x", 1, &value).unwrap_err().is_message());
    }

    #[test]
    fn half_a_letter_is_replaced_and_routing_is_as_ever() {
        let table = [
            (r#"{"cmd":"a","text":"cut \ud83d"}"#, Some("a"), json!({ "cmd": "a", "text": "cut \u{fffd}" })),
            (
                r#"{"text":"\udc00","cmd":"PROTEUS_X"}"#,
                Some("PROTEUS_X"),
                json!({ "text": "\u{fffd}", "cmd": "PROTEUS_X" }),
            ),
            (r#"{"cmd":"\ud83d"}"#, Some("\u{fffd}"), json!({ "cmd": "\u{fffd}" })),
            (r#""\ud83d\ude00""#, None, json!("\u{1f600}")),
        ];
        for (line, cmd, value) in table {
            let message = parse(line).unwrap();
            assert_eq!((message.cmd(), message.value()), (cmd, &value), "{line}");
        }
    }

    #[test]
    fn a_message_serializes_as_it_came() {
        let line = r#"{"z":1.50,"cmd":"a","b":{"y":[],"x":12345678901234567890123}}"#;
        let message = parse(&format!(" {line}\t")).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), line);
        assert_eq!(Outgoing::of(&message).unwrap().line, format!("{line}\n").as_bytes());
        let (question, cmd) = Outgoing::question(&message).unwrap();
        assert_eq!(cmd, "a");
        let numbered = String::from_utf8(question.numbered(7)).unwrap();
        assert!(
            numbered.starts_with(&line[..line.len() - 1]) && numbered.ends_with(",\"PROTEUS_REQUEST\":7}\n")
        );
        let asked = parse(numbered.trim()).unwrap();
        assert_eq!(serde_json::to_value(&asked).unwrap(), *message.value(), "the number is ours");
        let spread = parse("{\"a\":\r1}").unwrap();
        assert_eq!(Outgoing::of(&[&spread]).unwrap().line, b"[{\"a\":\r1}]\n");
    }

    #[test]
    fn an_escaped_reserved_name_is_reserved() {
        let message = parse(r#"{"cmd":"\u0050ROTEUS_READY"}"#).unwrap();
        assert!(Outgoing::of(&message).unwrap_err().is_message());
        let deep = parse(&format!(r#"{{"deep":{},"cmd":"NODE_X"}}"#, nested(300))).unwrap();
        assert!(Outgoing::of(&deep).unwrap_err().is_message());
    }

    #[test]
    fn of_a_line_that_is_dropped_the_beginning_tells_whose_it_was() {
        let table = [
            (r#"{"cmd":"a","PROTEUS_REQUEST":7,"msg":nonsense}"#, Some("a"), Some(7)),
            (r#"{"cmd":"a","msg":"never ends"#, Some("a"), None),
            (r#"["cmd","a""#, None, None),
            ("nonsense", None, None),
        ];
        for (line, cmd, request) in table {
            assert_eq!(glimpse(line.as_bytes()), (cmd.map(str::to_owned), request), "{line}");
            let garbage = parse(line).unwrap_err();
            assert_eq!((garbage.cmd.as_deref(), garbage.request), (cmd, request), "{line}");
        }
    }
}
