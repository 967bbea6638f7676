//! A record as a line of JSON. Pure: a record and a moment in, text out.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::date::Date;
use super::escape;
use super::record::Origin;
use crate::message::Pairs;

#[derive(Serialize)]
struct Object<'a> {
    time: String,
    level: &'static str,
    target: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv: Option<Pairs<'a>>,
}

/// One object, with its newline. `since` is the time since the epoch.
pub(crate) fn line(record: &log::Record<'_>, worker: Option<&Origin>, since: Duration) -> String {
    let pairs = record.key_values();
    let object = Object {
        time: time(since),
        level: record.level().as_str(),
        target: record.target(),
        message: record.args().to_string(),
        worker: worker.map(|worker| worker.worker),
        slot: worker.map(|worker| worker.slot),
        pid: worker.map(|worker| worker.pid),
        module: record.module_path(),
        file: record.file(),
        line: record.line(),
        kv: (pairs.count() > 0).then_some(Pairs(pairs)),
    };
    // Strings and numbers alone: nothing in it can fail to be JSON.
    let json = serde_json::to_string(&object).unwrap_or_default();
    let mut safe = escape::json(json);
    safe.push('\n');
    safe
}

/// `2026-01-31T09:30:00.123Z`.
fn time(since: Duration) -> String {
    let Date { year, month, day, hour, minute, second, .. } = Date::after_epoch(since.as_secs());
    let mut time = String::with_capacity(24);
    let milliseconds = since.subsec_millis();
    // Writing to a string cannot fail.
    let _ =
        write!(time, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z");
    time
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn everything_that_a_record_has() {
        let pairs = [("n", log::kv::Value::from(1)), ("text", "\u{9b}x".into())];
        let worker = Origin::new(3, 1, 1234);
        let mut builder = log::Record::builder();
        builder.level(log::Level::Warn).target("app::db").module_path(Some("app")).file(Some("a.rs"));
        builder.line(Some(7)).key_values(&pairs);
        let since = Duration::from_millis(1_767_225_600_007);
        let text = line(
            &builder.args(format_args!("a\nb\u{1b}[31m \"q\" \u{85}\u{2028}")).build(),
            Some(&worker),
            since,
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            !text.trim_end().chars().any(|letter| letter.is_control() || letter == '\u{2028}'),
            "{text:?}"
        );
        let expected = json!({
            "time": "2026-01-01T00:00:00.007Z", "level": "WARN", "target": "app::db",
            "message": "a\nb\u{1b}[31m \"q\" \u{85}\u{2028}", "worker": 3, "slot": 1, "pid": 1234,
            "module": "app", "file": "a.rs", "line": 7, "kv": { "n": 1, "text": "\u{9b}x" },
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }

    #[test]
    fn what_a_record_has_not_is_left_out() {
        let text =
            line(&log::Record::builder().args(format_args!("m")).target("t").build(), None, Duration::ZERO);
        assert_eq!(
            text,
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"INFO\",\"target\":\"t\",\"message\":\"m\"}\n"
        );
    }
}
