//! The master's one way to the log: a bounded queue, and a thread that takes from it.
//!
//! Whoever logs never waits. What the queue has no room for is dropped and counted, and the count is
//! logged once lines get through again. The thread hands each record to whatever logger the program
//! has installed; where that is ours, the same thread formats it and writes it to stderr. A logger or
//! a reader of stderr that stands still therefore stops this thread and nobody else.
#![cfg_attr(not(feature = "logger"), allow(dead_code))] // files and formats are our own logger's alone

mod date;
pub(crate) mod escape;
mod file;
mod gauge;
mod json;
mod last_word;
pub(crate) mod lines;
mod open;
mod record;
pub(crate) mod series;
mod sink;
mod site;
#[cfg(test)]
mod test_folder;
mod thread;
pub(crate) mod throttle;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub(crate) use file::LogPlace;
#[cfg(feature = "logger")]
pub(crate) use json::line as json_line;
pub(crate) use record::Manner;
#[cfg(feature = "logger")]
pub(crate) use record::named;
pub(crate) use record::{Origin, Output, Record, Sent, Stream};
#[cfg(feature = "logger")]
pub(crate) use thread::Formatter;

use crate::account::Account;
use crate::sys::exit::{self, LastWord};
use crate::sys::signal::Mask;
use gauge::Gauge;
use lines::Lines;

use crate::message::LogLine;

/// How long the end of the process waits for what is still queued.
const LAST_LINES: Duration = Duration::from_secs(1);

/// One for the process, as the logger is; running while somebody holds it.
static JOURNAL: RwLock<Option<Journal>> = RwLock::new(None);
static GAUGE: Gauge = Gauge::new();

/// The way in.
struct Journal {
    queue: Sender<Item>,
    holds: usize,
}

/// Keeps the log thread running: a cluster while it runs, our own logger for good. The last one to be
/// dropped waits for what is queued, but not for a log that stands still.
#[derive(Debug)]
pub(crate) struct Hold(());

/// What waits in the queue.
enum Item {
    /// For whatever logger there is.
    Record(Record),
    /// A worker's record, for the same.
    Sent(Box<Sent>),
    /// Captured lines of a worker, for the same.
    Output(Output),
    /// A line that our logger has formatted already, on the thread that logged it.
    #[cfg(feature = "logger")]
    Line(Vec<u8>),
    /// From now on the logger of the process is ours, and this is how it formats.
    #[cfg(feature = "logger")]
    Format(Formatter),
    /// Where our logger's lines go from now on: to this file, or to stderr.
    Use(Option<Box<LogPlace>>),
    /// Open the file anew.
    Reopen,
    /// Nothing but a reason to look at the count of dropped lines.
    Wake,
    /// Why the cluster ends.
    LastWord(Box<Record>),
    /// Says when everything before it is written.
    Flush(Sender<()>),
}

/// Starts the thread, unless it runs already.
pub(crate) fn start() -> io::Result<Hold> {
    let mut running = JOURNAL.write().unwrap_or_else(PoisonError::into_inner);
    match &mut *running {
        Some(journal) => journal.holds += 1,
        None => *running = Some(Journal { queue: start_thread()?, holds: 1 }),
    }
    Ok(Hold(()))
}

fn start_thread() -> io::Result<Sender<Item>> {
    let (queue, items) = channel();
    // None of the program's signals are ours to take.
    let before = Mask::block_all();
    let builder = std::thread::Builder::new().name("proteus-log".into());
    let started = builder.spawn(move || thread::run(&items, &GAUGE));
    before.apply();
    started?;
    exit::before_exit(LastWord::Log, flush);
    Ok(queue)
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut running = JOURNAL.write().unwrap_or_else(PoisonError::into_inner);
        let Some(journal) = &mut *running else { return };
        journal.holds -= 1;
        if journal.holds == 0 {
            let last = running.take();
            drop(running);
            wait_for_lines(last.map(|journal| journal.queue));
        }
    }
}

/// How our logger writes, from now on and where; without it, how a logger is handed lines.
static MANNER: AtomicU8 = AtomicU8::new(0);
const MANNERS: [Manner; 3] = [Manner::Styled, Manner::Plain, Manner::Json];

pub(crate) fn manner() -> Manner {
    MANNERS[usize::from(MANNER.load(Relaxed)) % MANNERS.len()]
}

/// Our own logger writes so from now on, and there.
#[cfg(feature = "logger")]
pub(crate) fn write_to(place: Option<LogPlace>, manner: Manner) {
    MANNER.store(manner as u8, Relaxed);
    order(Item::Use(place.map(Box::new)));
}

/// Opens the log file anew, where there is one.
pub(crate) fn reopen() {
    order(Item::Reopen);
}

fn order(item: Item) {
    if let Some(queue) = queue() {
        // The thread ends with the last sender only.
        let _ = queue.send(item);
    }
}

/// Lines that never reached the log, ever.
pub(crate) fn dropped() -> u64 {
    GAUGE.dropped()
}

/// Waits until what is queued by now is written, but not for a log that stands still.
pub(crate) fn flush() {
    wait_for_lines(queue());
}

fn wait_for_lines(queue: Option<Sender<Item>>) {
    let (done, wait) = channel();
    if queue.is_some_and(|queue| queue.send(Item::Flush(done)).is_ok()) {
        // Too late is no worse than never: whoever asked goes on.
        let _ = wait.recv_timeout(LAST_LINES);
    }
}

fn queue() -> Option<Sender<Item>> {
    let running = JOURNAL.read().unwrap_or_else(PoisonError::into_inner);
    running.as_ref().map(|journal| journal.queue.clone())
}

/// What the macros of this module call. Before and after the log thread's life there is no loop that must not
/// wait: then the line goes to the logger at once.
pub(crate) fn write(level: log::Level, target: &'static str, place: Place, message: fmt::Arguments<'_>) {
    if level > log::max_level() {
        return;
    }
    let record = Record::own(level, target, place, message.to_string());
    if let Err(Item::Record(record)) = put(Item::Record(record)) {
        record.tell(manner(), &mut |record, _| log::logger().log(record));
    }
}

/// Like [`write`], for the line that says why the cluster ends: [`end`] sees to it that somebody can see it.
pub(crate) fn write_last(level: log::Level, target: &'static str, place: Place, message: fmt::Arguments<'_>) {
    let record = Record::own(level, target, place, message.to_string());
    last_word::say(&record.message);
    order(Item::LastWord(Box::new(record)));
}

/// The cluster has ended: its last word is written, on stderr if the log has not done so in its time.
pub(crate) fn end() {
    flush();
    last_word::tell_stderr_if_unseen();
}

/// A record that a worker has sent.
pub(crate) fn sent(origin: &Arc<Origin>, line: LogLine) {
    if line.level > log::max_level() {
        return;
    }
    if put(Item::Sent(Box::new(Sent { origin: Arc::clone(origin), line }))).is_err() {
        GAUGE.drop_lines(1);
    }
}

/// Lines that a worker could not send.
pub(crate) fn lost_by_worker(lines: u64) {
    GAUGE.drop_lines(lines);
    // So that the thread says it, should nothing else come.
    if GAUGE.wake() {
        order(Item::Wake);
    }
}

/// Captured lines of a worker. They come from a cluster that runs, and so the thread does.
pub(crate) fn output(origin: &Arc<Origin>, stream: Stream, lines: Lines) {
    if lines.is_empty() || stream.level() > log::max_level() {
        return;
    }
    let count = lines.count();
    if put(Item::Output(Output { origin: Arc::clone(origin), stream, lines })).is_err() {
        GAUGE.drop_lines(count);
    }
}

/// Queues it, or drops and counts it where there is no room. Returned where no thread runs.
#[allow(clippy::result_large_err)] // it is the very thing that was to be queued
fn put(item: Item) -> Result<(), Item> {
    let running = JOURNAL.read().unwrap_or_else(PoisonError::into_inner);
    let Some(journal) = &*running else { return Err(item) };
    let cost = item.cost();
    if !GAUGE.admit(cost, item.share()) {
        GAUGE.drop_lines(item.lines());
        return Ok(());
    }
    journal.queue.send(item).map_err(|unsent| {
        GAUGE.release(cost, unsent.0.share());
        unsent.0
    })
}

/// A line that our logger has formatted; while our logger is installed the thread runs.
#[cfg(feature = "logger")]
pub(crate) fn put_line(line: &[u8]) {
    if put(Item::Line(line.to_vec())).is_err() {
        GAUGE.drop_lines(1);
    }
}

/// The logger of the process is ours.
#[cfg(feature = "logger")]
pub(crate) fn format_with(formatter: Formatter) {
    order(Item::Format(formatter));
}

/// Where in our own code a line comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

impl Item {
    /// The memory that it holds, about.
    fn cost(&self) -> usize {
        size_of::<Item>()
            + match self {
                Item::Record(record) => record.heap(),
                Item::Sent(sent) => size_of::<Sent>() + sent.line.heap(),
                Item::Output(output) => output.heap(),
                #[cfg(feature = "logger")]
                Item::Line(line) => line.len(),
                #[cfg(feature = "logger")]
                Item::Format(_) => 0,
                Item::Use(_) | Item::Reopen | Item::Wake | Item::LastWord(_) | Item::Flush(_) => 0,
            }
    }

    /// The lines of the log that it becomes.
    fn lines(&self) -> u64 {
        match self {
            Item::Output(output) => output.lines.count(),
            Item::Record(_) | Item::Sent(_) => 1,
            #[cfg(feature = "logger")]
            Item::Line(_) => 1,
            #[cfg(feature = "logger")]
            Item::Format(_) => 0,
            Item::Use(_) | Item::Reopen | Item::Wake | Item::LastWord(_) | Item::Flush(_) => 0,
        }
    }

    /// Whose share of the room it takes.
    fn share(&self) -> Option<&Account> {
        match self {
            Item::Output(output) => Some(&output.origin.account),
            Item::Sent(sent) => Some(&sent.origin.account),
            Item::Record(_) => None,
            #[cfg(feature = "logger")]
            Item::Line(_) | Item::Format(_) => None,
            Item::Use(_) | Item::Reopen | Item::Wake | Item::LastWord(_) | Item::Flush(_) => None,
        }
    }
}

/// Logs from the master's own code, which never waits for a logger: as the macros of `log`, by way of the thread.
macro_rules! journal_write {
    ($level:ident, $target:expr, $($message:tt)+) => {
        $crate::journal::write(
            log::Level::$level,
            $target,
            $crate::journal::Place { module: module_path!(), file: file!(), line: line!() },
            format_args!($($message)+),
        )
    };
}

#[allow(unused_macros)]
macro_rules! journal_error { ($($message:tt)+) => { $crate::journal::journal_write!(Error, module_path!(), $($message)+) }; }
macro_rules! journal_warn { ($($message:tt)+) => { $crate::journal::journal_write!(Warn, module_path!(), $($message)+) }; }
macro_rules! journal_info { ($($message:tt)+) => { $crate::journal::journal_write!(Info, module_path!(), $($message)+) }; }
macro_rules! journal_debug { ($($message:tt)+) => { $crate::journal::journal_write!(Debug, module_path!(), $($message)+) }; }

#[allow(unused_imports)] // the family is complete, whether or not each level is in use
pub(crate) use {
    journal_debug as debug, journal_error as error, journal_info as info, journal_warn as warn, journal_write,
};
