//! A record on its way to the log thread.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use log::kv;
use serde_json::Value;

use super::Place;
use super::escape;
use super::lines::Lines;
use crate::account::Account;
use crate::message::LogLine;

/// A worker as the log names it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) worker: u64,
    pub(crate) slot: usize,
    pub(crate) pid: u32,
    /// What it makes the master hold.
    pub(crate) account: Arc<Account>,
}

impl Origin {
    pub(crate) fn new(worker: u64, slot: usize, pid: u32) -> Arc<Self> {
        Arc::new(Origin { worker, slot, pid, account: Arc::default() })
    }
}

/// What stands before a worker's own words.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} (pid {})", self.worker, self.pid)
    }
}

/// A line of the master's own.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(super) level: log::Level,
    pub(super) target: Cow<'static, str>,
    pub(super) message: String,
    pub(super) place: Place,
}

/// Time, level, target and name of the worker, about.
const ADDED: usize = 64;

/// Captured lines of a worker.
#[derive(Debug)]
pub(crate) struct Output {
    pub(super) origin: Arc<Origin>,
    pub(super) stream: Stream,
    pub(super) lines: Lines,
}

/// A record that a worker has sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(super) origin: Arc<Origin>,
    pub(super) line: LogLine,
}

/// Which of a worker's two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// The target and the level of its lines: stderr is where faults go.
    fn kind(self) -> (&'static str, log::Level) {
        match self {
            Stream::Stdout => ("worker::stdout", log::Level::Info),
            Stream::Stderr => ("worker::stderr", log::Level::Warn),
        }
    }

    pub(super) fn level(self) -> log::Level {
        self.kind().1
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Text, with colours where stderr wants them.
    Styled,
    /// Text without colours.
    Plain,
    /// A JSON object each, which has escapes of its own.
    Json,
}

impl Manner {
    fn safe(self, text: &str) -> Cow<'_, str> {
        match self {
            Manner::Styled | Manner::Plain => escape::text(text),
            Manner::Json => Cow::Borrowed(text),
        }
    }

    fn safe_bytes(self, bytes: &[u8]) -> Cow<'_, str> {
        match self {
            Manner::Styled | Manner::Plain => escape::bytes(bytes),
            Manner::Json => String::from_utf8_lossy(bytes),
        }
    }
}

/// Takes a record as loggers know it, and the worker that it comes from.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&log::Record<'_>, Option<&Origin>);

impl Record {
    /// Of the master's own code.
    pub(super) fn own(level: log::Level, target: &'static str, place: Place, message: String) -> Self {
        Record { level, target: target.into(), message, place }
    }

    /// Bytes that it holds beside itself.
    pub(super) fn heap(&self) -> usize {
        self.message.capacity()
    }

    /// What others have said may stand in the message: it is escaped here, once, for all who log.
    pub(super) fn tell(&self, manner: Manner, tell: Tell<'_>) {
        let text = manner.safe(&self.message);
        let mut builder = log::Record::builder();
        builder.level(self.level).target(&self.target);
        builder.module_path_static(Some(self.place.module)).file_static(Some(self.place.file));
        builder.line(Some(self.place.line));
        tell(&builder.args(format_args!("{text}")).build(), None);
    }
}

impl Output {
    /// Bytes that it holds beside itself, and those that the log adds to each line: a million empty lines
    /// are not little.
    pub(super) fn heap(&self) -> usize {
        let lines = usize::try_from(self.lines.count()).unwrap_or(usize::MAX);
        self.lines.heap().saturating_add(lines.saturating_mul(ADDED))
    }

    pub(super) fn tell(&self, manner: Manner, tell: Tell<'_>) {
        let (target, level) = self.stream.kind();
        for line in self.lines.iter() {
            let mut builder = log::Record::builder();
            builder.level(level).target(target);
            let text = manner.safe_bytes(line);
            tell(&builder.args(format_args!("{text}")).build(), Some(&self.origin));
        }
    }
}

impl Sent {
    pub(super) fn tell(&self, manner: Manner, tell: Tell<'_>) {
        let line = &self.line;
        let pairs: Vec<(Cow<'_, str>, Pair<'_>)> =
            line.kv.iter().map(|(key, value)| (manner.safe(key), Pair::of(value, manner))).collect();
        let pairs: Vec<(&str, kv::Value<'_>)> =
            pairs.iter().map(|(key, value)| (&**key, value.known())).collect();
        let kvs = pairs.as_slice();
        let target = manner.safe(&line.target);
        let [module, file] =
            [&line.module, &line.file].map(|text| text.as_deref().map(|text| manner.safe(text)));
        let text = manner.safe(&line.message);
        let mut builder = log::Record::builder();
        builder.level(line.level).target(&target).line(line.line).key_values(&kvs);
        builder.module_path(module.as_deref()).file(file.as_deref());
        tell(&builder.args(format_args!("{text}")).build(), Some(&self.origin));
    }
}

/// A value of a worker's, as loggers take it.
enum Pair<'a> {
    Truth(bool),
    Natural(u64),
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
}

impl<'a> Pair<'a> {
    fn of(value: &'a Value, manner: Manner) -> Self {
        let number = || value.as_u64().map(Pair::Natural).or(value.as_i64().map(Pair::Integer));
        let simple = value.as_bool().map(Pair::Truth).or_else(number).or(value.as_f64().map(Pair::Real));
        simple.unwrap_or_else(|| match value {
            Value::String(text) => Pair::Text(manner.safe(text)),
            other => Pair::Text(Cow::Owned(manner.safe(&other.to_string()).into_owned())),
        })
    }

    fn known(&self) -> kv::Value<'_> {
        match self {
            Pair::Truth(truth) => (*truth).into(),
            Pair::Natural(number) => (*number).into(),
            Pair::Integer(number) => (*number).into(),
            Pair::Real(number) => (*number).into(),
            Pair::Text(text) => (&**text).into(),
        }
    }
}

/// The same record with the worker's name before its message, for text and for loggers that know no workers.
pub(crate) fn named(record: &log::Record<'_>, worker: &Origin, tell: impl FnOnce(&log::Record<'_>)) {
    let mut named = log::Record::builder();
    named.metadata(record.metadata().clone());
    named.module_path(record.module_path()).file(record.file()).line(record.line());
    named.key_values(record.key_values());
    tell(&named.args(format_args!("{worker}: {}", record.args())).build());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a logger is handed of a message that somebody else's words stand in.
    fn told(message: &str, manner: Manner) -> String {
        let place = Place { module: "m", file: "f.rs", line: 1 };
        let record = Record::own(log::Level::Warn, "proteus_cluster", place, message.to_owned());
        let mut told = String::new();
        record.tell(manner, &mut |record, _| told = record.args().to_string());
        told
    }

    #[test]
    fn the_masters_own_lines_are_escaped_where_they_are_made() {
        let table = [
            ("plain, with \"quotes\" and \\ and é", "plain, with \"quotes\" and \\ and é"),
            ("listener at unix:/a\nb\u{1b}[31m: in use", "listener at unix:/a\\nb\\u{1b}[31m: in use"),
            ("a\r\tb\0\u{7f}\u{9b}2J", "a\\r\\tb\\0\\u{7f}\\u{9b}2J"),
            ("\u{202e}back\u{2028}", "\\u{202e}back\\u{2028}"),
        ];
        for (message, expected) in table {
            assert_eq!(told(message, Manner::Plain), expected);
            assert_eq!(told(message, Manner::Styled), expected);
            assert_eq!(told(message, Manner::Json), message, "JSON has escapes of its own");
        }
    }
}
