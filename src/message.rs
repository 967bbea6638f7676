//! A line of the channel: framing, and what the reserved lines mean. Pure: bytes in, values out.
//!
//! The channel carries one JSON value a line, the framing that Node uses too. Whoever reads it calls
//! [`Framer::push`] with what came, then [`Framer::next_line`] until that is `None`, then parses each line.

mod envelope;
mod fields;
mod framer;
mod log_line;
mod mend;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(fuzzing), allow(unreachable_pub))]
pub mod property;
mod user;

use std::fmt;

use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(crate) use self::fields::{field, number, text};

pub(crate) use self::framer::{Framer, Line, MAX_LINE};
#[cfg(feature = "logger")]
pub(crate) use self::log_line::encode as encode_record;
pub(crate) use self::log_line::{LONGEST_MESSAGE, LogLine, Pairs};
pub use self::user::Message;
use self::user::glimpse;
pub(crate) use self::user::{Outgoing, failure_line, reply_line};

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbage {
    reason: String,
    /// Its `cmd` and the number of its request, as far as they could be made out: somebody may wait for this line.
    pub(crate) cmd: Option<String>,
    pub(crate) request: Option<u64>,
}

impl Garbage {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Garbage { reason: reason.into(), cmd: None, request: None }
    }

    /// With what can be seen of the line, or of its beginning.
    pub(crate) fn seen(line: &[u8], reason: impl Into<String>) -> Self {
        let (cmd, request) = glimpse(line);
        Garbage { reason: reason.into(), cmd, request }
    }
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A line from a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromWorker {
    /// It reads its channel and will say when it is ready.
    Hello,
    Ready,
    /// The watchdog's food.
    Alive,
    /// It wants a listener at this address, shared with its siblings.
    Listen {
        address: String,
    },
    /// Its closure failed with this text: the cause of the exit that follows.
    Failed {
        reason: String,
    },
    /// It answers requests of this name, and sends their numbers back.
    Answers {
        to: String,
    },
    /// A message handler of its panicked.
    Panicked {
        text: String,
    },
    Log(LogLine),
    /// So many lines of its log found the channel full, and are lost.
    LogDropped {
        count: u64,
    },
    /// It asks to be replaced.
    RestartMe,
    User(Message),
    /// A `cmd` of the reserved kind that this version does not know: not for listeners.
    Reserved(String),
}

impl FromWorker {
    /// What the line says.
    pub(crate) fn parse(line: impl Into<Vec<u8>>) -> Result<Self, Garbage> {
        FromWorker::of(Message::parse(line.into())?)
    }

    /// What a message says that was read before.
    pub(crate) fn of(message: Message) -> Result<Self, Garbage> {
        let Some(cmd) = message.cmd().filter(|cmd| is_reserved(cmd)) else {
            return Ok(FromWorker::User(message));
        };
        // The one kind that comes in floods is read without a detour.
        if cmd == "PROTEUS_LOG" {
            return LogLine::parse(message.line()).map(FromWorker::Log);
        }
        let line = message.line();
        Ok(match cmd {
            "PROTEUS_HELLO" => FromWorker::Hello,
            "PROTEUS_READY" => FromWorker::Ready,
            "PROTEUS_ALIVE" => FromWorker::Alive,
            "PROTEUS_RESTART_ME" => FromWorker::RestartMe,
            "PROTEUS_LISTEN" => FromWorker::Listen { address: said(line, cmd, "address")? },
            "PROTEUS_FAILED" => FromWorker::Failed { reason: said(line, cmd, "reason")? },
            "PROTEUS_ANSWERS" => FromWorker::Answers { to: said(line, cmd, "to")? },
            "PROTEUS_PANICKED" => FromWorker::Panicked { text: said(line, cmd, "text")? },
            "PROTEUS_LOG_DROPPED" => FromWorker::LogDropped { count: counted(line, cmd, "count")? },
            other => FromWorker::Reserved(other.to_owned()),
        })
    }

    /// The line with its newline.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            FromWorker::Hello => line(&json!({ "cmd": "PROTEUS_HELLO" })),
            FromWorker::Ready => line(&json!({ "cmd": "PROTEUS_READY" })),
            FromWorker::Alive => line(&json!({ "cmd": "PROTEUS_ALIVE" })),
            FromWorker::RestartMe => line(&json!({ "cmd": "PROTEUS_RESTART_ME" })),
            FromWorker::Listen { address } => line(&json!({ "cmd": "PROTEUS_LISTEN", "address": address })),
            FromWorker::Failed { reason } => line(&json!({ "cmd": "PROTEUS_FAILED", "reason": reason })),
            FromWorker::Answers { to } => line(&json!({ "cmd": "PROTEUS_ANSWERS", "to": to })),
            FromWorker::Panicked { text } => line(&json!({ "cmd": "PROTEUS_PANICKED", "text": text })),
            FromWorker::Log(record) => record.encode(),
            FromWorker::LogDropped { count } => {
                line(&json!({ "cmd": "PROTEUS_LOG_DROPPED", "count": count }))
            }
            FromWorker::User(message) => line(message.value()),
            FromWorker::Reserved(cmd) => line(&json!({ "cmd": cmd })),
        }
    }
}

/// A line from the master.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ToWorker {
    /// Stop accepting, finish, exit.
    Disconnect,
    /// The answer to `PROTEUS_LISTEN`. With `Ok` a descriptor travels with the line.
    Listening {
        address: String,
        outcome: Result<(), String>,
    },
    User(Message),
    /// A `cmd` of the reserved kind that this version does not know.
    Reserved(String),
}

impl ToWorker {
    /// What the line says.
    pub(crate) fn parse(line: impl Into<Vec<u8>>) -> Result<Self, Garbage> {
        let message = Message::parse(line.into())?;
        let Some(cmd) = message.cmd().filter(|cmd| is_reserved(cmd)) else {
            return Ok(ToWorker::User(message));
        };
        let line = message.line();
        Ok(match cmd {
            "PROTEUS_DISCONNECT" => ToWorker::Disconnect,
            "PROTEUS_LISTENING" => ToWorker::Listening {
                address: said(line, cmd, "address")?,
                outcome: match field(line, "fd").map(RawValue::get) {
                    Some("true") => Ok(()),
                    _ => Err(said(line, cmd, "error")?),
                },
            },
            other => ToWorker::Reserved(other.to_owned()),
        })
    }

    /// The line with its newline.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            ToWorker::Disconnect => line(&json!({ "cmd": "PROTEUS_DISCONNECT" })),
            ToWorker::Listening { address, outcome: Ok(()) } => {
                line(&json!({ "cmd": "PROTEUS_LISTENING", "address": address, "fd": true }))
            }
            ToWorker::Listening { address, outcome: Err(error) } => {
                line(&json!({ "cmd": "PROTEUS_LISTENING", "address": address, "error": error }))
            }
            ToWorker::User(message) => line(message.value()),
            ToWorker::Reserved(cmd) => line(&json!({ "cmd": cmd })),
        }
    }
}

/// Whether users may not send this `cmd`.
pub(crate) fn is_reserved(cmd: &str) -> bool {
    cmd.starts_with("PROTEUS_") || cmd.starts_with("NODE_")
}

fn counted(line: &[u8], cmd: &str, key: &str) -> Result<u64, Garbage> {
    field(line, key).and_then(number).ok_or_else(|| Garbage::new(format!("{cmd} without the number {key:?}")))
}

fn said(line: &[u8], cmd: &str, key: &str) -> Result<String, Garbage> {
    field(line, key).and_then(text).ok_or_else(|| Garbage::new(format!("{cmd} without the text {key:?}")))
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(value: &Value) -> Message {
        Message::parse(value.to_string().into_bytes()).unwrap()
    }

    #[test]
    fn what_a_worker_may_say() {
        let table = [
            (r#"{"cmd":"PROTEUS_HELLO"}"#, FromWorker::Hello),
            (r#" {"cmd":"PROTEUS_READY","more":[1]} "#, FromWorker::Ready),
            ("{\"cmd\":\"PROTEUS_ALIVE\"}\r", FromWorker::Alive),
            (r#"{"cmd":"PROTEUS_RESTART_ME"}"#, FromWorker::RestartMe),
            (r#"{"cmd":"PROTEUS_LISTEN","address":":80"}"#, FromWorker::Listen { address: ":80".into() }),
            (r#"{"cmd":"PROTEUS_FAILED","reason":"no"}"#, FromWorker::Failed { reason: "no".into() }),
            (r#"{"cmd":"PROTEUS_LATER"}"#, FromWorker::Reserved("PROTEUS_LATER".into())),
            (r#"{"cmd":"NODE_CLUSTER","act":"online"}"#, FromWorker::Reserved("NODE_CLUSTER".into())),
            (r#"{"cmd":"__proto__"}"#, FromWorker::User(user(&json!({ "cmd": "__proto__" })))),
            (r#"{"cmd":7}"#, FromWorker::User(user(&json!({ "cmd": 7 })))),
            (r#""PROTEUS_READY""#, FromWorker::User(user(&json!("PROTEUS_READY")))),
            (r#"["cmd","PROTEUS_READY"]"#, FromWorker::User(user(&json!(["cmd", "PROTEUS_READY"])))),
            ("null", FromWorker::User(user(&Value::Null))),
            (r#"{"cmd":"proteus_ready"}"#, FromWorker::User(user(&json!({ "cmd": "proteus_ready" })))),
        ];
        for (text, expected) in table {
            assert_eq!(FromWorker::parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        let deep = "[".repeat(100_000);
        let table: [&[u8]; 8] = [
            b"",
            b"hello",
            b"{\"cmd\":\"PROTEUS_LISTEN\"}",
            b"{\"cmd\":\"PROTEUS_LISTEN\",\"address\":8080}",
            b"{\"cmd\":\"PROTEUS_LOG\",\"message\":\"m\",\"level\":\"loud\"}",
            b"\"\xff\xfe\"",
            b"{} {}",
            deep.as_bytes(),
        ];
        for line in table {
            let refused = FromWorker::parse(line).expect_err("garbage");
            assert!(!refused.to_string().is_empty());
        }
        assert!(ToWorker::parse(b"{\"cmd\":\"PROTEUS_LISTENING\",\"address\":\"a\"}").is_err());
    }

    #[test]
    fn every_line_survives_the_wire() {
        let log = LogLine {
            level: log::Level::Warn,
            target: "app".into(),
            message: "a\nb".into(),
            module: None,
            file: Some("src/main.rs".into()),
            line: Some(7),
            kv: [("n".to_owned(), 1.into())].into_iter().collect(),
        };
        let from = [
            FromWorker::Hello,
            FromWorker::Ready,
            FromWorker::Alive,
            FromWorker::RestartMe,
            FromWorker::Listen { address: "[::]:80".into() },
            FromWorker::Failed { reason: "line one\nline two \u{1b}[31m \0".into() },
            FromWorker::Answers { to: "x".into() },
            FromWorker::Panicked { text: "at\nall".into() },
            FromWorker::Log(log),
            FromWorker::LogDropped { count: 3 },
            FromWorker::User(user(&json!({ "text": "a\nb", "n": [1, 2.5, null] }))),
            FromWorker::Reserved("PROTEUS_LATER".into()),
        ];
        for message in from {
            assert_eq!(FromWorker::parse(one_line(&message.encode())), Ok(message));
        }
        let to = [
            ToWorker::Disconnect,
            ToWorker::Listening { address: "a".into(), outcome: Ok(()) },
            ToWorker::Listening { address: "a".into(), outcome: Err("in use".into()) },
            ToWorker::User(user(&json!("hello"))),
            ToWorker::Reserved("PROTEUS_LATER".into()),
        ];
        for message in to {
            assert_eq!(ToWorker::parse(one_line(&message.encode())), Ok(message));
        }
    }

    fn one_line(bytes: &[u8]) -> Vec<u8> {
        let mut framer = Framer::new();
        framer.push(bytes);
        assert_eq!(framer.finish(), None);
        match (framer.next_line(), framer.next_line()) {
            (Some(Line::Text(line)), None) => line,
            other => panic!("{other:?}"),
        }
    }
}
