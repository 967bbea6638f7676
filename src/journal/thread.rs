//! The log thread: takes from the queue, formats or hands on, writes in batches, and says what was dropped.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::gauge::Gauge;
use super::record::named;
use super::{Item, Origin, Place, Record, sink};

/// Written at once when so much is formatted, and whenever nothing more waits.
const BATCH: usize = 64 << 10;
/// How often at most the log says that lines were dropped: a flood must not fill it with that.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// Appends the record, and the worker that it comes from, as a line of text; or nothing if it is filtered.
pub(crate) type Formatter = Box<dyn FnMut(&log::Record<'_>, Option<&Origin>, &mut Vec<u8>) + Send>;

/// Runs as long as the process.
pub(super) fn run(items: &Receiver<Item>, gauge: &Gauge) {
    let mut scribe = Scribe { gauge, formatter: None, batch: Vec::new(), told: 0, said: None };
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
    /// Dropped lines that the log has told of.
    told: u64,
    /// When it last did.
    said: Option<Instant>,
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

    fn take(&mut self, item: Item) {
        match &item {
            Item::Record(record) => record.tell(&mut |record, worker| self.hand_on(record, worker)),
            Item::Sent(sent) => sent.tell(&mut |record, worker| self.hand_on(record, worker)),
            Item::Output(output) => output.tell(&mut |record, worker| self.hand_on(record, worker)),
            #[cfg(feature = "logger")]
            Item::Line(line) => self.batch.extend_from_slice(line),
            Item::Wake => return self.gauge.woken(),
            Item::Flush(done) => return self.flush(done),
            #[cfg(feature = "logger")]
            Item::Format(_) => {}
        }
        #[cfg(feature = "logger")]
        if let Item::Format(formatter) = item {
            self.formatter = Some(formatter);
            return;
        }
        self.gauge.release(item.cost(), item.share());
        self.write_when_full();
    }

    /// To our own formatter, or to the logger that the program has installed.
    fn hand_on(&mut self, record: &log::Record<'_>, worker: Option<&Origin>) {
        match (&mut self.formatter, worker) {
            (Some(formatter), worker) => formatter(record, worker, &mut self.batch),
            (None, None) => log::logger().log(record),
            (None, Some(worker)) => named(record, worker, |record| log::logger().log(record)),
        }
        self.write_when_full();
    }

    fn write_when_full(&mut self) {
        if self.batch.len() >= BATCH {
            self.write();
        }
    }

    fn write(&mut self) {
        if let Err(lost) = sink::write(&self.batch) {
            self.gauge.drop_lines(lost.lines);
        }
        self.batch.clear();
        if self.telling_due() == Some(Duration::ZERO) {
            self.tell_dropped();
        }
    }

    /// How long until dropped lines are to be told of, if there are any untold.
    fn telling_due(&self) -> Option<Duration> {
        let untold = self.gauge.dropped() > self.told;
        untold.then(|| self.said.map_or(Duration::ZERO, |said| SAY_AGAIN.saturating_sub(said.elapsed())))
    }

    /// If even this cannot be written, it is told again later, with the sum.
    fn tell_dropped(&mut self) {
        self.said = Some(Instant::now());
        let dropped = self.gauge.dropped();
        let message =
            format!("log lines dropped: {}; the log did not take them in time", dropped - self.told);
        let place = Place { module: module_path!(), file: file!(), line: line!() };
        let record = Record::own(log::Level::Warn, "proteus_cluster", place, message);
        record.tell(&mut |record, worker| self.hand_on(record, worker));
        if sink::write(&self.batch).is_ok() {
            self.told = dropped;
        }
        self.batch.clear();
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
