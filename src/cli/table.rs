//! The status as people read it.

use std::fmt::Write;

use proteus_cluster::escape;
use serde_json::Value;

/// `/status` as text, or `None` when it is none.
pub(super) fn status(status: &Value) -> Option<String> {
    let master = status["master"].as_object()?;
    let workers = status["workers"].as_array()?;
    let mut text = format!(
        "master {} {}, generation {}, up {}, version {}\n",
        master["pid"],
        word(&master["state"]),
        master["generation"],
        span(master["uptimeMs"].as_u64()?),
        word(&master["version"]),
    );
    if let Some(restart) = status["restart"].as_object() {
        let reason =
            restart["reason"].as_str().map_or(String::new(), |reason| format!(": {}", plain(reason)));
        let (id, state) = (&restart["id"], word(&restart["state"]));
        let _ = writeln!(
            text,
            "restart {id} {state}, {} of {} workers replaced{reason}",
            restart["replaced"], restart["total"]
        );
    }
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{} on {}", word(&listener["name"]), word(&listener["address"]));
    }
    let forks = &status["forks"];
    let _ = writeln!(
        text,
        "{} crashes (budget left {}), {} planned replacements, {} messages and {} log lines dropped\n",
        forks["crashes"],
        forks["budgetLeft"],
        forks["planned"],
        status["dropped"]["messages"],
        status["dropped"]["logLines"]
    );
    text.push_str(&columns(workers));
    Some(text)
}

/// A column: its title, whether it holds numbers, and a worker's cell.
struct Column {
    title: &'static str,
    numbers: bool,
    cell: fn(&Value) -> String,
}

const COLUMNS: &[Column] = &[
    Column { title: "ID", numbers: true, cell: |worker| word(&worker["id"]) },
    Column { title: "SLOT", numbers: true, cell: |worker| word(&worker["slot"]) },
    Column { title: "PID", numbers: true, cell: |worker| word(&worker["pid"]) },
    Column { title: "GEN", numbers: true, cell: |worker| word(&worker["generation"]) },
    Column { title: "STATE", numbers: false, cell: |worker| word(&worker["state"]) },
    Column { title: "UP", numbers: true, cell: |worker| worker["uptimeMs"].as_u64().map_or(none(), span) },
    Column {
        title: "MEMORY",
        numbers: true,
        cell: |worker| worker["rssBytes"].as_u64().map_or(none(), bytes),
    },
    Column {
        title: "CPU",
        numbers: true,
        cell: |worker| worker["cpuPercent"].as_f64().map_or(none(), |percent| format!("{percent:.1}%")),
    },
    Column { title: "CRASHES", numbers: true, cell: |worker| word(&worker["respawns"]) },
    Column {
        title: "LAST EXIT",
        numbers: false,
        cell: |worker| ending(&worker["lastExit"]).unwrap_or(none()),
    },
];

fn columns(workers: &[Value]) -> String {
    let rows: Vec<Vec<String>> =
        workers.iter().map(|worker| COLUMNS.iter().map(|column| (column.cell)(worker)).collect()).collect();
    let titles = COLUMNS.iter().map(|column| column.title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((column, cell), width) in COLUMNS.iter().zip(row).zip(&widths) {
            let _ = if column.numbers {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:width$}  ")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The lines that tell of the workers in a verdict: how each ended, and what it wrote last.
pub(super) fn causes(verdict: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for worker in verdict["workers"].as_array().into_iter().flatten() {
        let said = worker["stderr"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ending = ending(worker).unwrap_or_default();
        let follows = if said.is_empty() { "" } else { "; its last lines on stderr:" };
        lines.push(format!("  worker {}: {ending}{follows}", worker["worker"]));
        lines.extend(said.iter().filter_map(Value::as_str).map(|line| format!("    {}", plain(line))));
    }
    lines
}

/// `crashed (signal 9): reason`.
fn ending(exit: &Value) -> Option<String> {
    let mut text = plain(exit["cause"].as_str()?);
    if let Some(code) = exit["code"].as_i64() {
        let _ = write!(text, " (exit status {code})");
    }
    if let Some(signal) = exit["signal"].as_i64() {
        let _ = write!(text, " (signal {signal})");
    }
    if let Some(reason) = exit["reason"].as_str() {
        let _ = write!(text, ": {}", plain(reason));
    }
    Some(text)
}

fn none() -> String {
    "-".into()
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => none(),
        Value::String(text) => plain(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Text from a worker, with nothing in it that would steer a terminal or forge a line.
pub(super) fn plain(text: &str) -> String {
    escape::text(text).into_owned()
}

/// `850ms`, `12.5s`, `3m20s`, `5h02m` or `3d04h`.
fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..60 => format!("{seconds}.{}s", milliseconds % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `512K`, `12.5M` or `1.5G`.
fn bytes(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..0x10_0000 => format!("{}K", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{}M", tenths(1 << 20)),
        _ => format!("{}G", tenths(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_as_a_table() {
        let seen = json!({
            "master": { "pid": 1200, "version": "0.1.0", "state": "running", "generation": 3, "uptimeMs": 93_600_000 },
            "workers": [
                { "id": 7, "slot": 0, "pid": 1231, "generation": 3, "state": "ready", "uptimeMs": 1200,
                  "rssBytes": 2_097_152, "cpuPercent": 0.44, "respawns": 2, "messagesIn": 10, "messagesOut": 4,
                  "lastExit": { "cause": "crashed", "code": null, "signal": 9, "reason": "a\nb\tc \u{202e}d\u{2028}", "stderr": [] } },
                { "id": 12, "slot": 1, "pid": null, "generation": 3, "state": "backoff", "uptimeMs": 0,
                  "rssBytes": null, "cpuPercent": null, "respawns": 0, "lastExit": null },
            ],
            "listeners": [{ "name": "http", "address": "127.0.0.1:8080" },
                          { "name": "unix:/a\n\u{1b}[2J", "address": "unix:/a\n\u{1b}[2J" }],
            "restart": { "id": 2, "state": "aborted", "replaced": 0, "total": 2, "reason": "worker 9 \u{1b}[31mfailed" },
            "forks": { "crashes": 3, "planned": 8, "budgetLeft": 97 },
            "dropped": { "messages": 0, "logLines": 1 },
        });
        let text = "\
master 1200 running, generation 3, up 1d02h, version 0.1.0
restart 2 aborted, 0 of 2 workers replaced: worker 9 \\u{1b}[31mfailed
http on 127.0.0.1:8080
unix:/a\\n\\u{1b}[2J on unix:/a\\n\\u{1b}[2J
3 crashes (budget left 97), 8 planned replacements, 0 messages and 1 log lines dropped

ID  SLOT   PID  GEN  STATE      UP  MEMORY   CPU  CRASHES  LAST EXIT
 7     0  1231    3  ready    1.2s    2.0M  0.4%        2  crashed (signal 9): a\\nb\\tc \\u{202e}d\\u{2028}
12     1     -    3  backoff   0ms       -     -        0  -
";
        assert_eq!(status(&seen).as_deref(), Some(text));
        assert_eq!(status(&json!({ "master": 1 })), None);
    }

    #[test]
    fn the_causes_of_a_verdict() {
        let verdict = json!({ "workers": [
            { "worker": 5, "cause": "boot-failed", "code": 1, "signal": null, "reason": "no database", "stderr": ["a", "b\u{7}"] },
            { "worker": 6, "cause": "ready-timeout", "code": null, "signal": 9, "reason": null, "stderr": [] },
        ] });
        let lines = [
            "  worker 5: boot-failed (exit status 1): no database; its last lines on stderr:",
            "    a",
            "    b\\u{7}",
            "  worker 6: ready-timeout (signal 9)",
        ];
        assert_eq!(causes(&verdict), lines);
        assert_eq!(causes(&json!({ "workers": [] })), Vec::<String>::new());
    }

    #[test]
    fn times_and_sizes_as_people_write_them() {
        let spans = [
            (850, "850ms"),
            (12_500, "12.5s"),
            (200_000, "3m20s"),
            (18_120_000, "5h02m"),
            (273_600_000, "3d04h"),
        ];
        for (milliseconds, text) in spans {
            assert_eq!(span(milliseconds), text);
        }
        for (size, text) in [(0, "0K"), (524_288, "512K"), (13_107_200, "12.5M"), (1_610_612_736, "1.5G")] {
            assert_eq!(bytes(size), text);
        }
    }
}
