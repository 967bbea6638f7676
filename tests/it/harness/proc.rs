//! What /proc knows of the processes of a test.

use std::collections::BTreeMap;
use std::fs;

/// The environment variable that marks every process of a test.
pub(crate) const TAG: &str = "PROTEUS_TEST_TAG";

/// A process that carries a test's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) pid: u32,
    pub(crate) command: String,
}

/// The live processes that carry the tag, however they came to be.
pub(crate) fn tagged(tag: &str) -> Vec<Tagged> {
    let wanted = format!("{TAG}={tag}");
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|pair| pair == wanted.as_bytes())
    })
    .map(|pid| Tagged { pid, command: command(pid) })
    .collect()
}

/// The words a process was started with.
pub(crate) fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// Whether the process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The state letter of a process: R, S, D, T, Z…
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Whether every thread of a process is stopped: a signal reaches them one by one.
pub(crate) fn stand_still(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default());
    let mut letters = stats.map(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
    letters.all(|letter| letter == Some('T'))
}

/// The fields of /proc/PID/stat behind the name: state, ppid, pgrp…
pub(crate) fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The children of a process, zombies included.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A line of /proc/PID/status: `SigIgn`, `SigCgt`…
pub(crate) fn status_field(pid: impl std::fmt::Display, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// Whether one of the signal sets of /proc/PID/status holds this signal.
pub(crate) fn has_signal(pid: u32, set: &str, signal: i32) -> bool {
    let bits = status_field(pid, set).and_then(|bits| u64::from_str_radix(&bits, 16).ok());
    bits.is_some_and(|bits| bits >> (signal - 1) & 1 == 1)
}

/// Processor time of a process so far.
pub(crate) fn processor_time(pid: u32) -> std::time::Duration {
    let stat = stat(pid).unwrap_or_default();
    let ticks = |at: usize| stat.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    std::time::Duration::from_millis((ticks(11) + ticks(12)) * 10) // 100 ticks a second on all of Linux
}

/// The most bytes of memory that it ever held.
pub(crate) fn peak(pid: u32) -> u64 {
    kilobytes(pid, "VmHWM") << 10
}

fn kilobytes(pid: u32, name: &str) -> u64 {
    let field = status_field(pid, name).unwrap_or_default();
    field.trim_end_matches(" kB").parse().expect("a number of kB")
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The environment that a process was started with. A key that stands twice is the end of the test.
#[track_caller]
pub(crate) fn environment(pid: u32) -> BTreeMap<String, String> {
    // For a moment after its exec a process has none to show.
    let read = || fs::read(format!("/proc/{pid}/environ")).ok().filter(|bytes| !bytes.is_empty());
    let bytes = super::eventually("an environment", read);
    let mut all = BTreeMap::new();
    for pair in bytes.split(|&byte| byte == 0).filter(|pair| !pair.is_empty()) {
        let text = String::from_utf8_lossy(pair);
        let (key, value) = text.split_once('=').expect("KEY=VALUE");
        assert_eq!(all.insert(key.to_owned(), value.to_owned()), None, "{key} stands twice");
    }
    all
}

/// A line of /proc/PID/status of a process that is there: `SigBlk`, `Uid`…
#[track_caller]
pub(crate) fn status_line(pid: u32, name: &str) -> String {
    status_field(pid, name).unwrap_or_else(|| panic!("process {pid} shows no {name}"))
}

/// What each open descriptor of a process leads to.
pub(crate) fn open_files(pid: u32) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let target = |number| fs::read_link(format!("/proc/{pid}/fd/{number}"));
    numbers.filter_map(|number| Some((number, target(number).ok()?.display().to_string()))).collect()
}

/// The flags of an open descriptor: access mode, `O_NONBLOCK`…
#[track_caller]
pub(crate) fn file_flags(pid: u32, number: u32) -> i32 {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).expect("the descriptor is open");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    i32::from_str_radix(flags.trim(), 8).expect("octal")
}

/// Bytes of memory that a process holds.
pub(crate) fn resident(pid: u32) -> u64 {
    let field = status_field(pid, "VmRSS").expect("it lives");
    field.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("kilobytes") * 1024
}
