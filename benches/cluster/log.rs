//! Log records through the master against one process that writes the same lines to the same file by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::median;
use crate::stage::{LOG, Running, Stage};

/// How long a process logs without a pause.
const WINDOW: Duration = Duration::from_millis(300);
const ROUNDS: usize = 11;
/// The file is complete when it has not grown for so long.
const QUIET: Duration = Duration::from_millis(60);

/// Lines a second that are in the file when all is over. A worker never waits for its log: what it logs faster
/// than the master writes is dropped and counts for nothing.
pub(crate) fn lines_per_second() {
    let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(through_the_master());
        bare.push(by_itself());
        ratios.push(ours[ours.len() - 1] / bare[bare.len() - 1]);
    }
    let (rate, bare_rate, ratio) = (median(&mut ours), median(&mut bare), median(&mut ratios));
    println!("{:<58} {rate:>12.0} {bare_rate:>12.0} {ratio:>7.3}  >= 0.5", "log lines a second, one worker");
}

fn through_the_master() -> f64 {
    let stage = Stage::new("log");
    let file = stage.path("log");
    let settings = json!({ "logFile": file, "output": "inherit" });
    let _master = stage.cluster_that_logs("info", "logs", 1, &settings);
    rate(&stage, &file)
}

fn by_itself() -> f64 {
    let stage = Stage::new("log-bare");
    let file = stage.path("log");
    let mut command = stage.command("logs-bare");
    let _process = Running(command.env(LOG, &file).spawn().expect("it starts"));
    rate(&stage, &file)
}

/// From the word that it begins to the last line.
fn rate(stage: &Stage, file: &Path) -> f64 {
    stage.report();
    let began = Instant::now();
    stage.report();
    let (mut size, mut grown) = (0, Instant::now());
    while grown.elapsed() < QUIET {
        let now = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if now != size {
            (size, grown) = (now, Instant::now());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let text = std::fs::read_to_string(file).expect("the log");
    let lines = text.lines().filter(|line| line.contains("of the lines that are measured")).count();
    f64::from(u32::try_from(lines).expect("fewer")) / (grown - began).as_secs_f64()
}

/// What both of them do.
pub(crate) fn write() {
    let began = Instant::now();
    let mut number = 0u64;
    while began.elapsed() < WINDOW {
        for _ in 0..100 {
            ::log::info!("number {number} of the lines that are measured, as long as lines of a log are");
            number += 1;
        }
    }
}
