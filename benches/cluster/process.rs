//! What /proc tells of a process, and the one signal.
#![allow(unsafe_code)]

use std::fs;

/// SIGKILL to a worker that has just reported.
pub(crate) fn kill(pid: u32) {
    // SAFETY: takes two integers.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
}

/// Context switches of all its threads, wanted or not: how often it was awake.
pub(crate) fn switches(pid: u32) -> u64 {
    threads(pid).map(|task| field_sum(&task, "ctxt_switches:")).sum()
}

pub(crate) fn thread_count(pid: u32) -> usize {
    threads(pid).count()
}

fn threads(pid: u32) -> impl Iterator<Item = String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
}

/// Memory that is its own alone, in bytes.
pub(crate) fn private_memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
    rollup.lines().filter(|line| line.starts_with("Private_")).map(|line| number(line) * 1024).sum()
}

fn field_sum(text: &str, name: &str) -> u64 {
    text.lines().filter(|line| line.contains(name)).map(number).sum()
}

fn number(line: &str) -> u64 {
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
