//! Memory and processor time of workers, read from /proc by whichever thread asks; never by the loop.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::status::Status;
use crate::sys::process::{clock_ticks, page_size};

/// Processor time at the previous look, by worker id.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seen: HashMap<u64, Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    seconds: f64,
}

impl Meter {
    /// Fills in what only /proc knows. A worker that has gone meanwhile keeps its blanks.
    pub(crate) fn fill_in(&mut self, status: &mut Status) {
        let now = Instant::now();
        let mut seen = HashMap::with_capacity(status.workers.len());
        for row in &mut status.workers {
            let Some(pid) = row.pid else { continue };
            row.rss_bytes = resident(pid);
            let Some(seconds) = processor_seconds(pid) else { continue };
            let (used, span) = match self.seen.get(&row.id) {
                Some(before) => (seconds - before.seconds, (now - before.at).as_secs_f64()),
                None => (seconds, Duration::from_millis(row.uptime_ms).as_secs_f64()),
            };
            row.cpu_percent = Some(percent(used, span));
            seen.insert(row.id, Sample { at: now, seconds });
        }
        self.seen = seen;
    }
}

fn percent(used: f64, span: f64) -> f64 {
    if span <= 0.0 { 0.0 } else { (used / span * 1000.0).round().max(0.0) / 10.0 }
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    pages.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * page_size())
}

fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let (user, system) = (ticks(11)?, ticks(12)?);
    Some(Duration::from_millis((user + system) * 1000 / clock_ticks().max(1)).as_secs_f64())
}
