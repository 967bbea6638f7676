//! A record of a worker's log as a line of the channel.

use std::fmt;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Garbage;
use super::user::read;
use crate::account::cut;

/// A longer message is cut: it is a line of the log, and not a file.
pub(crate) const LONGEST_MESSAGE: usize = 64 << 10;

/// The same for a target, a module and a file.
const LONGEST_NAME: usize = 1 << 10;

/// A record of a worker's log. In other languages only `message` is needed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogLine {
    pub(crate) level: log::Level,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// Its key-values.
    pub(crate) kv: Map<String, Value>,
}

/// The same on the wire.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    target: Option<String>,
    message: String,
    #[serde(default)]
    module: Option<String>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    line: Option<u32>,
    /// Read only where it is short: a short text can be many values.
    #[serde(default, borrow)]
    kv: Option<&'a RawValue>,
}

impl LogLine {
    pub(super) fn parse(line: &[u8]) -> Result<Self, Garbage> {
        let refused = |error: serde_json::Error| Garbage::new(format!("PROTEUS_LOG: {error}"));
        let wire: Wire<'_> = read(line).map_err(refused)?;
        let Wire { level, target, mut message, module, file, line, kv } = wire;
        cut(&mut message, LONGEST_MESSAGE);
        let mut target = target.filter(|target| !target.is_empty()).unwrap_or_else(|| "worker".to_owned());
        let [mut module, mut file] = [module, file];
        for name in [Some(&mut target), module.as_mut(), file.as_mut()].into_iter().flatten() {
            cut(name, LONGEST_NAME);
        }
        let kv = match kv.map(RawValue::get) {
            None => Map::new(),
            Some(text) if text.len() > LONGEST_MESSAGE => left_out("too long"),
            Some(text) => match serde_json::from_str(text) {
                Err(_) if text.starts_with('{') => left_out("nested too deep"),
                read => read.map_err(refused)?,
            },
        };
        Ok(LogLine { level: level_of(level.as_deref())?, target, message, module, file, line, kv })
    }

    /// The line with its newline.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        let outline = Outline {
            cmd: "PROTEUS_LOG",
            level: self.level.as_str(),
            target: &self.target,
            message: format_args!("{}", self.message),
            module: self.module.as_deref(),
            file: self.file.as_deref(),
            line: self.line,
            kv: (!self.kv.is_empty()).then_some(&self.kv),
        };
        write_line(&mut line, &outline);
        line
    }

    /// What it takes of memory beside itself, about.
    pub(crate) fn heap(&self) -> usize {
        let texts = [&self.module, &self.file].into_iter().flatten().map(String::capacity).sum::<usize>();
        let pairs = self.kv.iter().map(|(key, value)| key.len() + size_of(value) + 128).sum::<usize>();
        self.target.capacity() + self.message.capacity() + texts + pairs
    }
}

/// What stands in the place of key-values that are not kept.
fn left_out(why: &str) -> Map<String, Value> {
    [("kv".to_owned(), why.into())].into_iter().collect()
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 64 + size_of(item)).sum(),
        // The smallest has room for eleven.
        Value::Object(fields) => {
            512 + fields.iter().map(|(key, value)| 128 + key.len() + size_of(value)).sum::<usize>()
        }
    }
}

/// By the names of `log`, and those that other languages' loggers have for the same.
fn level_of(name: Option<&str>) -> Result<log::Level, Garbage> {
    const OTHERS: [(&str, log::Level); 5] = [
        ("warning", log::Level::Warn),
        ("notice", log::Level::Info),
        ("critical", log::Level::Error),
        ("fatal", log::Level::Error),
        ("verbose", log::Level::Debug),
    ];
    let Some(name) = name else { return Ok(log::Level::Info) };
    let other = || OTHERS.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, level)| *level);
    let level = name.parse().ok().or_else(other);
    level.ok_or_else(|| Garbage::new(format!("PROTEUS_LOG: unknown level {name:?}")))
}

/// A record as the worker's logger writes it, without a copy in between.
#[cfg(feature = "logger")]
pub(crate) fn encode(record: &log::Record<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    let pairs = record.key_values();
    let outline = Outline {
        cmd: "PROTEUS_LOG",
        level: record.level().as_str(),
        target: record.target(),
        message: *record.args(),
        module: record.module_path(),
        file: record.file(),
        line: record.line(),
        kv: (pairs.count() > 0).then_some(Pairs(pairs)),
    };
    write_line(&mut line, &outline);
    line
}

#[derive(Serialize)]
struct Outline<'a, K: Serialize> {
    cmd: &'static str,
    level: &'static str,
    target: &'a str,
    #[serde(serialize_with = "as_text")]
    message: fmt::Arguments<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv: Option<K>,
}

fn as_text<S: Serializer>(message: &fmt::Arguments<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    match message.as_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_str(message),
    }
}

fn write_line(line: &mut Vec<u8>, outline: &impl Serialize) {
    // A record whose own `Display` fails is written up to there; what is left is no JSON, and said to be so.
    drop(serde_json::to_writer(&mut *line, outline));
    line.push(b'\n');
}

/// Key-values as a JSON object.
pub(crate) struct Pairs<'a>(pub(crate) &'a dyn log::kv::Source);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut visitor = Visitor { map: serializer.serialize_map(None)?, failed: None };
        drop(self.0.visit(&mut visitor));
        match visitor.failed {
            Some(error) => Err(error),
            None => visitor.map.end(),
        }
    }
}

struct Visitor<M: SerializeMap> {
    map: M,
    failed: Option<M::Error>,
}

impl<'kvs, M: SerializeMap> log::kv::VisitSource<'kvs> for Visitor<M> {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        let written = self.map.serialize_entry(key.as_str(), &json_of(&value));
        written.map_err(|error| {
            self.failed = Some(error);
            log::kv::Error::msg("no JSON")
        })
    }
}

/// Numbers, truths and text as they are; anything else as its text.
pub(crate) fn json_of(value: &log::kv::Value<'_>) -> Value {
    let number = || value.to_u64().map(Value::from).or_else(|| value.to_i64().map(Value::from));
    let truth = || value.to_bool().map(Value::from);
    let float = || value.to_f64().map(Value::from).filter(Value::is_number);
    number().or_else(truth).or_else(float).unwrap_or_else(|| value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<LogLine, String> {
        LogLine::parse(value.to_string().as_bytes()).map_err(|garbage| garbage.to_string())
    }

    #[test]
    fn a_message_is_enough() {
        let parsed = parse(&json!({ "cmd": "PROTEUS_LOG", "message": "m" })).unwrap();
        let (level, target) = (log::Level::Info, "worker".to_owned());
        let [module, file] = [None, None];
        let expected =
            LogLine { level, target, message: "m".into(), module, file, line: None, kv: Map::new() };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn levels_by_the_names_of_many_loggers() {
        let table = [
            ("ERROR", Some(log::Level::Error)),
            ("warn", Some(log::Level::Warn)),
            ("WARNING", Some(log::Level::Warn)),
            ("Critical", Some(log::Level::Error)),
            ("notice", Some(log::Level::Info)),
            ("trace", Some(log::Level::Trace)),
            ("loud", None),
            ("", None),
        ];
        for (name, level) in table {
            let parsed = parse(&json!({ "message": "m", "level": name }));
            assert_eq!(parsed.ok().map(|line| line.level), level, "{name}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for value in [
            json!({}),
            json!({ "message": 7 }),
            json!({ "message": "m", "level": 3 }),
            json!({ "message": "m", "line": -1 }),
            json!({ "message": "m", "kv": [] }),
        ] {
            assert!(parse(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let long = "é".repeat(LONGEST_MESSAGE);
        let message = parse(&json!({ "message": long })).unwrap().message;
        assert_eq!(message.len(), LONGEST_MESSAGE + "…".len());
        assert!(message.ends_with("é…"));
        let parsed = parse(&json!({ "message": "m", "target": long, "kv": { "long": long } })).unwrap();
        assert_eq!(parsed.target.len(), LONGEST_NAME + "…".len());
        assert_eq!(Value::Object(parsed.kv), json!({ "kv": "too long" }));
    }

    #[test]
    fn a_record_survives_the_wire_with_all_it_has() {
        let pairs = [("n", log::kv::Value::from(-7)), ("ok", true.into()), ("text", "a\nb".into())];
        let mut builder = log::Record::builder();
        builder.level(log::Level::Warn).target("app::db").module_path(Some("app::db::pool"));
        builder.file(Some("src/db.rs")).line(Some(42)).key_values(&pairs);
        let line = encode(&builder.args(format_args!("{} lines:\n\"x\"\0", 2)).build());
        assert_eq!(line.split_inclusive(|&byte| byte == b'\n').count(), 1);
        let parsed = LogLine::parse(&line).unwrap();
        assert_eq!((parsed.level, parsed.target.as_str()), (log::Level::Warn, "app::db"));
        assert_eq!(parsed.message, "2 lines:\n\"x\"\0");
        assert_eq!(parsed.module.as_deref(), Some("app::db::pool"));
        assert_eq!((parsed.file.as_deref(), parsed.line), (Some("src/db.rs"), Some(42)));
        assert_eq!(Value::Object(parsed.kv.clone()), json!({ "n": -7, "ok": true, "text": "a\nb" }));
        assert_eq!(LogLine::parse(&parsed.encode()).unwrap(), parsed);
    }
}
