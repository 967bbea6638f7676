//! One logger for both roles.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use env_logger::{Env, Target, WriteStyle};
use log::Log;

use crate::journal::{self, Hold};
use crate::sys::inherit::EarlyChannel;
use crate::worker::{self, Shipper};

/// The one call at the start of `main`, in the master and in the workers alike. Does nothing if the program has
/// a logger already.
///
/// `RUST_LOG` chooses what is shown; without it `info` and louder.
///
/// In the master, and in any program that is no worker, lines are written through `env_logger`: to stderr, or to
/// the file of the setting `logFile`; coloured on a terminal (`RUST_LOG_STYLE` and `NO_COLOR` are heard). They go
/// by way of a thread and a bounded queue: a reader of stderr that stands still never stops whoever logs. What the
/// queue has no room for is dropped; the log says how many lines, and so does `dropped.logLines` of the status.
/// What is queued when the process exits is written first, for up to a second.
///
/// In a worker, lines that pass `RUST_LOG` go to the master over the channel, in order with the worker's messages,
/// and the master writes them through whatever logger it has, with the worker's id and pid. They never wait: what
/// a full channel does not take is dropped, and counted with the rest. The message of a panic is logged before the
/// program's own panic hook runs.
pub fn init() {
    match worker::early_channel() {
        Some(channel) => init_worker(channel),
        None => init_master(),
    }
}

fn init_worker(channel: EarlyChannel) {
    let rules = builder().build();
    let filter = rules.filter();
    if log::set_boxed_logger(Box::new(Shipper::new(rules, channel))).is_ok() {
        log::set_max_level(filter);
        Shipper::hook_panics();
    }
}

/// For a program that is a master and nothing else, also where another cluster has started it.
#[doc(hidden)]
pub fn init_master() {
    let Ok(hold) = journal::start() else {
        // No thread to be had: the plain way, then. A logger that is there already stays.
        return drop(builder().try_init());
    };
    let logger = builder().target(Target::Pipe(Box::new(Queue(hold)))).write_style(style()).build();
    let filter = logger.filter();
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(filter);
        journal::format_with(formatter());
    }
}

fn builder() -> env_logger::Builder {
    env_logger::Builder::from_env(Env::default().default_filter_or("info"))
}

/// Colours are for terminals, unless somebody asks for them by name.
fn style() -> WriteStyle {
    let variable = |name| std::env::var(name).unwrap_or_default();
    match variable("RUST_LOG_STYLE").as_str() {
        "always" => WriteStyle::Always,
        "never" => WriteStyle::Never,
        _ if !variable("NO_COLOR").is_empty() || variable("TERM") == "dumb" => WriteStyle::Never,
        _ if io::stderr().is_terminal() => WriteStyle::Always,
        _ => WriteStyle::Never,
    }
}

/// What the log thread formats with: the same settings, into memory of its own.
fn formatter() -> journal::Formatter {
    let page = Page::default();
    let logger = builder().target(Target::Pipe(Box::new(page.clone()))).write_style(style()).build();
    Box::new(move |record, worker, lines| {
        match worker {
            None => logger.log(record),
            Some(worker) => journal::named(record, worker, |record| logger.log(record)),
        }
        lines.append(&mut page.lines());
    })
}

/// Where `env_logger` writes on the thread of whoever logs: one call, one line.
struct Queue(#[allow(dead_code)] Hold);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        journal::put_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where it writes on the log thread, which alone ever locks it.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Page {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
