//! The log thread: takes from the queue, formats or hands on, writes in batches, and says what was dropped.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::file::{LogFile, LogPlace};
use super::gauge::Gauge;
use super::record::named;
use super::sink::{self, Sink};
use super::throttle::Pace;
use super::{Item, Origin, Place, Record, last_word};

/// Written at once when so much is formatted, and whenever nothing more waits.
const BATCH: usize = 64 << 10;

/// Appends the record, and the worker that it comes from, as a line of text; or nothing if it is filtered.
pub(crate) type Formatter = Box<dyn FnMut(&log::Record<'_>, Option<&Origin>, &mut Vec<u8>) + Send>;

/// Runs as long as the process.
pub(super) fn run(items: &Receiver<Item>, gauge: &Gauge) {
    let mut scribe = Scribe {
        gauge,
        formatter: None,
        batch: Vec::new(),
        sink: Sink::Stderr,
        told: 0,
        pace: Pace::default(),
    };
    while let Some(item) = scribe.wait(items) {
        scribe.take(item);
        while let Ok(item) = items.try_recv() {
            scribe.take(item);
        }
        scribe.write();
    }
}

struct Scribe<'a> {
    gauge: &'a Gauge,
    /// Ours, where the logger of the process is ours.
    formatter: Option<Formatter>,
    batch: Vec<u8>,
    sink: Sink,
    /// Dropped lines that the log has told of.
    told: u64,
    /// A flood must not fill the log with that.
    pace: Pace,
}

impl Scribe<'_> {
    /// The next item; meanwhile dropped lines are told of as soon as that is due. An idle log never wakes.
    fn wait(&mut self, items: &Receiver<Item>) -> Option<Item> {
        loop {
            let Some(due) = self.telling_due() else { return items.recv().ok() };
            match items.recv_timeout(due) {
                Ok(item) => return Some(item),
                Err(RecvTimeoutError::Timeout) => self.tell_dropped(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Orders are obeyed; all else are words for the log.
    fn take(&mut self, item: Item) {
        match item {
            Item::Use(place) => self.write_to(place.as_deref()),
            Item::Reopen => self.reopen(),
            Item::Wake => self.gauge.woken(),
            Item::LastWord(record) => self.tell_last_word(&record),
            Item::Flush(done) => self.flush(&done),
            #[cfg(feature = "logger")]
            Item::Format(formatter) => self.formatter = Some(formatter),
            words => self.tell(&words),
        }
    }

    fn tell(&mut self, words: &Item) {
        let mut hand_on = |record: &log::Record<'_>, worker: Option<&Origin>| self.hand_on(record, worker);
        match words {
            Item::Record(record) => record.tell(super::manner(), &mut hand_on),
            Item::Sent(sent) => sent.tell(super::manner(), &mut hand_on),
            Item::Output(output) => output.tell(super::manner(), &mut hand_on),
            #[cfg(feature = "logger")]
            Item::Line(line) => self.batch.extend_from_slice(line),
            #[cfg(feature = "logger")]
            Item::Format(_) => return,
            Item::Use(_) | Item::Reopen | Item::Wake | Item::LastWord(_) | Item::Flush(_) => return,
        }
        self.gauge.release(words.cost(), words.share());
        self.write_when_full();
    }

    /// What the program's own logger shows is its own affair; ours must show it on stderr.
    fn tell_last_word(&mut self, record: &Record) {
        self.write();
        let is_seen = if self.formatter.is_some() {
            record.tell(super::manner(), &mut |record, worker| self.hand_on(record, worker));
            let is_shown = !self.batch.is_empty();
            is_shown && self.sink.write(&self.batch).is_ok() && matches!(self.sink, Sink::Stderr)
        } else {
            let mut is_shown = false;
            record.tell(super::manner(), &mut |record, _| {
                is_shown = record.level() <= log::max_level() && log::logger().enabled(record.metadata());
                self.hand_over(record);
            });
            is_shown
        };
        self.batch.clear();
        self.tell_news();
        if is_seen {
            last_word::seen();
        }
    }

    /// To our own formatter, or to the logger that the program has installed.
    fn hand_on(&mut self, record: &log::Record<'_>, worker: Option<&Origin>) {
        match (&mut self.formatter, worker) {
            (Some(formatter), worker) => formatter(record, worker, &mut self.batch),
            (None, None) => self.hand_over(record),
            (None, Some(worker)) => named(record, worker, |record| self.hand_over(record)),
        }
        self.write_when_full();
    }

    /// A logger that panics loses the line, and not the thread.
    fn hand_over(&self, record: &log::Record<'_>) {
        if catch_unwind(AssertUnwindSafe(|| log::logger().log(record))).is_err() {
            self.gauge.drop_lines(1);
        }
    }

    fn write_when_full(&mut self) {
        if self.batch.len() >= BATCH {
            self.write();
        }
    }

    fn write(&mut self) {
        if let Err(lost) = self.sink.write(&self.batch) {
            self.gauge.drop_lines(lost.lines);
        }
        self.batch.clear();
        self.tell_news();
        if self.telling_due() == Some(Duration::ZERO) {
            self.tell_dropped();
        }
    }

    /// How long until dropped lines are to be told of, if there are any untold.
    fn telling_due(&self) -> Option<Duration> {
        let untold = self.gauge.dropped() > self.told;
        untold.then(|| self.pace.wait(Instant::now()))
    }

    /// If even this cannot be written, it is told again later, with the sum.
    fn tell_dropped(&mut self) {
        self.pace.tell(Instant::now());
        let dropped = self.gauge.dropped();
        let message =
            format!("log lines dropped: {}; the log did not take them in time", dropped - self.told);
        self.say(log::Level::Warn, message);
        if self.sink.write(&self.batch).is_ok() {
            self.told = dropped;
        }
        self.batch.clear();
        self.tell_news();
    }

    /// What lines were there before goes where they went before.
    fn write_to(&mut self, place: Option<&LogPlace>) {
        self.write();
        self.sink = match place {
            Some(place) => Sink::File(Box::new(LogFile::new(place.clone()))),
            None => Sink::Stderr,
        };
        self.tell_news();
    }

    fn reopen(&mut self) {
        self.write();
        self.sink.reopen();
        self.tell_news();
        if matches!(self.sink, Sink::File(_)) {
            self.say(log::Level::Info, "the log file was opened anew".to_owned());
        }
    }

    fn say(&mut self, level: log::Level, message: String) {
        let place = Place { module: module_path!(), file: file!(), line: line!() };
        let record = Record::own(level, "proteus_cluster", place, message);
        record.tell(super::manner(), &mut |record, worker| self.hand_on(record, worker));
    }

    /// A trouble with the file is told where somebody may see it at once: on stderr.
    fn tell_news(&mut self) {
        for message in self.sink.news() {
            let lines = mem::take(&mut self.batch);
            self.say(log::Level::Warn, message);
            sink::tell_stderr(&self.batch);
            self.batch = lines;
        }
    }

    fn flush(&mut self, done: &Sender<()>) {
        self.write();
        if self.gauge.dropped() > self.told {
            self.tell_dropped();
        }
        if self.formatter.is_none() {
            log::logger().flush();
        }
        // Whoever waited may have given up.
        let _ = done.send(());
    }
}
