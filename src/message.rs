//! A line of the channel: framing, and what the reserved lines mean. Pure: bytes in, values out.
//!
//! The channel carries one JSON value a line, the framing that Node uses too. Whoever reads it calls
//! [`Framer::push`] with what came, then [`Framer::next_line`] until that is `None`, then parses each line.

use std::collections::VecDeque;
use std::fmt;

use serde_json::{Value, json};

/// The longest line, without its newline: 4 MiB bounds what one peer can make the other hold.
pub(crate) const MAX_LINE: usize = 4 << 20;

/// What the stream held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its newline; not yet known to be JSON.
    Text(Vec<u8>),
    /// A line passed [`MAX_LINE`] and is dropped up to its newline. Said once, however long it grows.
    Oversize,
}

/// Cuts a byte stream into lines. Holds at most one partial line of [`MAX_LINE`] beside the lines not yet taken.
#[derive(Debug)]
pub(crate) struct Framer {
    tail: Tail,
    lines: VecDeque<Line>,
}

/// The line that has not met its newline.
#[derive(Debug)]
enum Tail {
    Kept(Vec<u8>),
    Skipped,
}

impl Framer {
    pub(crate) fn new() -> Self {
        Framer { tail: Tail::Kept(Vec::new()), lines: VecDeque::new() }
    }

    /// Takes bytes as they came, however they were cut. Each byte is looked at once.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..end]);
            if let Tail::Kept(line) = std::mem::replace(&mut self.tail, Tail::Kept(Vec::new())) {
                self.lines.push_back(Line::Text(line));
            }
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// The next whole line, if one has come.
    pub(crate) fn next_line(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    /// The stream has ended: the bytes after the last newline, if any. An oversize tail has been told already.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.tail, Tail::Kept(Vec::new())) {
            Tail::Kept(line) if !line.is_empty() => Some(line),
            Tail::Kept(_) | Tail::Skipped => None,
        }
    }

    fn extend(&mut self, piece: &[u8]) {
        let Tail::Kept(line) = &mut self.tail else { return };
        if line.len() + piece.len() <= MAX_LINE {
            line.extend_from_slice(piece);
        } else {
            self.tail = Tail::Skipped;
            self.lines.push_back(Line::Oversize);
        }
    }
}

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbage(String);

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    Log(LogLine),
    /// It asks to be replaced.
    RestartMe,
    User(Value),
    /// A `cmd` of the reserved kind that this version does not know: not for listeners.
    Reserved(String),
}

/// A record of a worker's log. In other languages only `message` is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) level: log::Level,
    pub(crate) target: String,
    pub(crate) message: String,
}

impl FromWorker {
    /// What the line says; serde's recursion limit and UTF-8 check refuse what could do harm.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Garbage> {
        let value = json_of(line)?;
        let Some(cmd) = reserved_cmd(&value) else { return Ok(FromWorker::User(value)) };
        Ok(match cmd {
            "PROTEUS_HELLO" => FromWorker::Hello,
            "PROTEUS_READY" => FromWorker::Ready,
            "PROTEUS_ALIVE" => FromWorker::Alive,
            "PROTEUS_RESTART_ME" => FromWorker::RestartMe,
            "PROTEUS_LISTEN" => FromWorker::Listen { address: text(&value, cmd, "address")? },
            "PROTEUS_FAILED" => FromWorker::Failed { reason: text(&value, cmd, "reason")? },
            "PROTEUS_LOG" => FromWorker::Log(LogLine::parse(&value, cmd)?),
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
            FromWorker::Log(LogLine { level, target, message }) => line(&json!({
                "cmd": "PROTEUS_LOG", "level": level.as_str(), "target": target, "message": message,
            })),
            FromWorker::User(value) => line(value),
            FromWorker::Reserved(cmd) => line(&json!({ "cmd": cmd })),
        }
    }
}

impl LogLine {
    fn parse(value: &Value, cmd: &str) -> Result<Self, Garbage> {
        let level = value.get("level").and_then(Value::as_str).unwrap_or("info");
        Ok(LogLine {
            level: level.parse().map_err(|_| Garbage(format!("{cmd}: unknown level {level:?}")))?,
            target: value.get("target").and_then(Value::as_str).unwrap_or_default().to_owned(),
            message: text(value, cmd, "message")?,
        })
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
    User(Value),
    /// A `cmd` of the reserved kind that this version does not know.
    Reserved(String),
}

impl ToWorker {
    /// What the line says.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Garbage> {
        let value = json_of(line)?;
        let Some(cmd) = reserved_cmd(&value) else { return Ok(ToWorker::User(value)) };
        Ok(match cmd {
            "PROTEUS_DISCONNECT" => ToWorker::Disconnect,
            "PROTEUS_LISTENING" => ToWorker::Listening {
                address: text(&value, cmd, "address")?,
                outcome: match value.get("fd") {
                    Some(Value::Bool(true)) => Ok(()),
                    _ => Err(text(&value, cmd, "error")?),
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
            ToWorker::User(value) => line(value),
            ToWorker::Reserved(cmd) => line(&json!({ "cmd": cmd })),
        }
    }
}

/// Whether users may not send this `cmd`.
pub(crate) fn is_reserved(cmd: &str) -> bool {
    cmd.starts_with("PROTEUS_") || cmd.starts_with("NODE_")
}

fn reserved_cmd(value: &Value) -> Option<&str> {
    value.get("cmd").and_then(Value::as_str).filter(|cmd| is_reserved(cmd))
}

fn json_of(line: &[u8]) -> Result<Value, Garbage> {
    serde_json::from_slice(line).map_err(|error| Garbage(format!("not JSON: {error}")))
}

fn text(value: &Value, cmd: &str, key: &str) -> Result<String, Garbage> {
    let found = value.get(key).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| Garbage(format!("{cmd} without the text {key:?}")))
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(framer: &mut Framer) -> Vec<Line> {
        std::iter::from_fn(|| framer.next_line()).collect()
    }

    fn texts(items: &[&str]) -> Vec<Line> {
        items.iter().map(|item| Line::Text(item.as_bytes().to_vec())).collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_only() {
        let table: [(&[&str], &[&str], Option<&str>); 6] = [
            (&["a\nb\n"], &["a", "b"], None),
            (&["a", "b\n", "c"], &["ab"], Some("c")),
            (&["\n\n"], &["", ""], None),
            (&["a\r\n"], &["a\r"], None),
            (&["{\"x\":", "1}\n{\"y\"", ":2}", "\n"], &["{\"x\":1}", "{\"y\":2}"], None),
            (&[], &[], None),
        ];
        for (pieces, expected, rest) in table {
            let mut framer = Framer::new();
            for piece in pieces {
                framer.push(piece.as_bytes());
            }
            assert_eq!(lines(&mut framer), texts(expected), "{pieces:?}");
            assert_eq!(framer.finish(), rest.map(|rest| rest.as_bytes().to_vec()), "{pieces:?}");
        }
    }

    #[test]
    fn an_oversize_line_is_told_once_and_the_stream_goes_on() {
        let mut framer = Framer::new();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            framer.push(&piece);
            let held = match &framer.tail {
                Tail::Kept(line) => line.capacity(),
                Tail::Skipped => 0,
            };
            assert!(held <= 2 * MAX_LINE, "{held} bytes held");
        }
        framer.push(b"\nnext\n");
        assert_eq!(lines(&mut framer), [Line::Oversize, Line::Text(b"next".to_vec())]);
        framer.push(&vec![b'y'; MAX_LINE + 1]);
        assert_eq!(lines(&mut framer), [Line::Oversize]);
        assert_eq!(framer.finish(), None);
    }

    #[test]
    fn the_limit_itself_still_fits() {
        let mut framer = Framer::new();
        framer.push(&vec![b'x'; MAX_LINE]);
        framer.push(b"\n");
        assert!(matches!(framer.next_line(), Some(Line::Text(line)) if line.len() == MAX_LINE));
        framer.push(&[&vec![b'x'; MAX_LINE + 1][..], b"\nz\n"].concat());
        assert_eq!(lines(&mut framer), [Line::Oversize, Line::Text(b"z".to_vec())]);
    }

    #[test]
    fn single_bytes_are_never_scanned_again() {
        let mut framer = Framer::new();
        let start = std::time::Instant::now();
        for _ in 0..MAX_LINE {
            framer.push(b"x");
        }
        framer.push(b"\n");
        assert_eq!(lines(&mut framer).len(), 1);
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "quadratic: {:?}", start.elapsed());
    }

    /// `xorshift64`: a seeded stream of numbers, so that a failure can be repeated.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state >> 33).unwrap_or(0)
    }

    #[test]
    fn random_cuts_change_nothing() {
        for seed in 1..=500u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let expected: Vec<Line> = (0..random(&mut state) % 20)
                .map(|_| match random(&mut state) % 24 {
                    0 => Line::Oversize,
                    length => Line::Text((0..length).map(|_| b"abcdefgh"[random(&mut state) % 8]).collect()),
                })
                .collect();
            let stream: Vec<u8> = expected.iter().flat_map(wire).collect();
            let mut framer = Framer::new();
            let (mut rest, mut found) = (&stream[..], Vec::new());
            while !rest.is_empty() {
                let most = if random(&mut state).is_multiple_of(2) { 8 } else { 3 << 20 };
                let (piece, after) = rest.split_at(rest.len().min(1 + random(&mut state) % most));
                framer.push(piece);
                if random(&mut state).is_multiple_of(2) {
                    found.extend(lines(&mut framer));
                }
                rest = after;
            }
            found.extend(lines(&mut framer));
            assert_eq!(found, expected, "seed {seed}");
            assert_eq!(framer.finish(), None, "seed {seed}");
        }
    }

    fn wire(line: &Line) -> Vec<u8> {
        match line {
            Line::Text(text) => [text, &b"\n"[..]].concat(),
            Line::Oversize => [&vec![b'z'; MAX_LINE + 1][..], b"\n"].concat(),
        }
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
            (r#"{"cmd":"__proto__"}"#, FromWorker::User(json!({ "cmd": "__proto__" }))),
            (r#"{"cmd":7}"#, FromWorker::User(json!({ "cmd": 7 }))),
            (r#""PROTEUS_READY""#, FromWorker::User(json!("PROTEUS_READY"))),
            (r#"["cmd","PROTEUS_READY"]"#, FromWorker::User(json!(["cmd", "PROTEUS_READY"]))),
            ("null", FromWorker::User(Value::Null)),
            (r#"{"cmd":"proteus_ready"}"#, FromWorker::User(json!({ "cmd": "proteus_ready" }))),
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
    fn a_log_line_needs_only_its_message() {
        let parsed = FromWorker::parse(br#"{"cmd":"PROTEUS_LOG","message":"m"}"#);
        let expected = LogLine { level: log::Level::Info, target: String::new(), message: "m".into() };
        assert_eq!(parsed, Ok(FromWorker::Log(expected)));
    }

    #[test]
    fn every_line_survives_the_wire() {
        let log = LogLine { level: log::Level::Warn, target: "app".into(), message: "a\nb".into() };
        let from = [
            FromWorker::Hello,
            FromWorker::Ready,
            FromWorker::Alive,
            FromWorker::RestartMe,
            FromWorker::Listen { address: "[::]:80".into() },
            FromWorker::Failed { reason: "line one\nline two \u{1b}[31m \0".into() },
            FromWorker::Log(log),
            FromWorker::User(json!({ "text": "a\nb", "n": [1, 2.5, null] })),
            FromWorker::Reserved("PROTEUS_LATER".into()),
        ];
        for message in from {
            assert_eq!(FromWorker::parse(&one_line(&message.encode())), Ok(message));
        }
        let to = [
            ToWorker::Disconnect,
            ToWorker::Listening { address: "a".into(), outcome: Ok(()) },
            ToWorker::Listening { address: "a".into(), outcome: Err("in use".into()) },
            ToWorker::User(json!("hello")),
            ToWorker::Reserved("PROTEUS_LATER".into()),
        ];
        for message in to {
            assert_eq!(ToWorker::parse(&one_line(&message.encode())), Ok(message));
        }
    }

    fn one_line(bytes: &[u8]) -> Vec<u8> {
        let mut framer = Framer::new();
        framer.push(bytes);
        assert_eq!(framer.finish(), None);
        match &lines(&mut framer)[..] {
            [Line::Text(line)] => line.clone(),
            other => panic!("{} lines", other.len()),
        }
    }
}
