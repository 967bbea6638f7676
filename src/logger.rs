//! One logger for both roles.

mod rules;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Logger, Target, WriteStyle};
use log::{Log, Metadata, Record};

use crate::config::LogFormat;
use crate::error::{Error, Result};
use crate::journal::{self, Hold, LogPlace, Manner, Origin};
use crate::sys::inherit::EarlyChannel;
use crate::worker::{self, Shipper};
use rules::{Rules, Word};

/// The one call at the start of `main`, in the master and in the workers alike. Does nothing if the program has
/// a logger already.
///
/// `RUST_LOG` chooses what is shown; without it, or with an empty one, `info` and louder.
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
    let rules = Rules::of_process(Word::Target);
    match worker::early_channel() {
        Some(channel) => init_worker(&rules, channel),
        None => init_with(&rules),
    }
}

fn init_worker(rules: &Rules, channel: EarlyChannel) {
    let logger = builder(rules).build();
    let filter = logger.filter();
    if log::set_boxed_logger(Box::new(Shipper::new(logger, channel))).is_ok() {
        log::set_max_level(filter);
        Shipper::hook_panics();
    }
}

/// For a program that is a master and nothing else, also where another cluster has started it.
#[doc(hidden)]
pub fn init_master() {
    init_with(&Rules::of_process(Word::Slip));
}

fn init_with(rules: &Rules) {
    let Ok(hold) = journal::start() else {
        // No thread to be had: the plain way, then. A logger that is there already stays.
        return drop(builder(rules).try_init());
    };
    let logger = MasterLogger { pen: Pen::new(rules, &Queue), _thread: hold };
    let filter = logger.pen.plain.filter();
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(filter);
        OURS.store(true, Relaxed);
        journal::format_with(formatter(rules));
        rules.complaints.iter().for_each(|complaint| complain(complaint));
    }
}

/// Rules that silence warnings must not silence what is wrong with them.
fn complain(complaint: &str) {
    if log::log_enabled!(target: "proteus_cluster", log::Level::Warn) {
        log::warn!(target: "proteus_cluster", "{complaint}");
    } else {
        // Nobody may be reading it, and then nobody is told.
        drop(writeln!(io::stderr(), "proteus: {complaint}"));
    }
}

/// Whether the logger of this process is the master's of this module.
static OURS: AtomicBool = AtomicBool::new(false);

/// Where and how the master logs, as its settings have it.
pub(crate) fn configure(place: Option<LogPlace>, format: LogFormat) -> Result<()> {
    let manner = match (format, &place) {
        (LogFormat::Json, _) => Manner::Json,
        (LogFormat::Text, Some(_)) => Manner::Plain,
        (LogFormat::Text, None) => Manner::Styled,
    };
    if OURS.load(Relaxed) {
        journal::write_to(place, manner);
        return Ok(());
    }
    let key = match manner {
        Manner::Styled => return Ok(()),
        Manner::Plain => "logFile",
        Manner::Json if place.is_some() => "logFile",
        Manner::Json => "logFormat",
    };
    let reason =
        "takes `proteus_cluster::logger::init()` at the start of the master; its logger is another one";
    Err(Error::setting(format!("setting `{key}`: {reason}")))
}

impl Rules {
    /// What this process was started with.
    fn of_process(word: Word) -> Self {
        Rules::read(std::env::var("RUST_LOG").ok().as_deref(), word)
    }
}

fn builder(rules: &Rules) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&rules.text);
    builder
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

/// Formats records, in whichever manner is asked for, and writes each in one piece.
struct Pen<W> {
    styled: Logger,
    plain: Logger,
    out: W,
}

impl<W: Write + Clone + Send + 'static> Pen<W> {
    fn new(rules: &Rules, out: &W) -> Self {
        let logger =
            |style| builder(rules).target(Target::Pipe(Box::new(out.clone()))).write_style(style).build();
        Pen { styled: logger(style()), plain: logger(WriteStyle::Never), out: out.clone() }
    }

    /// Nothing comes of a record that is filtered.
    fn write(&self, record: &Record<'_>, worker: Option<&Origin>) {
        let logger = match journal::manner() {
            Manner::Styled => &self.styled,
            Manner::Plain => &self.plain,
            Manner::Json => return self.write_json(record, worker),
        };
        match worker {
            None => logger.log(record),
            Some(worker) => journal::named(record, worker, |record| logger.log(record)),
        }
    }

    fn write_json(&self, record: &Record<'_>, worker: Option<&Origin>) {
        if self.plain.matches(record) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // Neither of our writers fails.
            let _ = self.out.clone().write_all(journal::json_line(record, worker, since).as_bytes());
        }
    }
}

/// What the log thread formats with, onto a page of its own.
fn formatter(rules: &Rules) -> journal::Formatter {
    let page = Page::default();
    let pen = Pen::new(rules, &page);
    Box::new(move |record, worker, lines| {
        pen.write(record, worker);
        lines.append(&mut page.lines());
    })
}

/// The logger of a master: each thread formats its own lines, and the log thread writes them.
struct MasterLogger {
    pen: Pen<Queue>,
    _thread: Hold,
}

impl Log for MasterLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.pen.plain.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.pen.write(record, None);
    }

    fn flush(&self) {
        journal::flush();
    }
}

/// Where lines are written on the thread of whoever logs: one call, one line.
#[derive(Clone, Copy)]
struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        journal::put_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where they are written on the log thread, which alone ever locks it.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
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
