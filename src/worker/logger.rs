//! The logger of a worker: filters here, and ships what is left to the master, which writes it.

use std::panic;
use std::sync::{Arc, OnceLock};

use env_logger::Logger;
use log::{Log, Metadata, Record};

use super::writer::Writer;
use crate::error::panic_text;
use crate::message::encode_record;
use crate::sys::inherit::EarlyChannel;

/// Where lines leave once the process has begun as a worker.
static WRITER: OnceLock<Arc<Writer>> = OnceLock::new();

/// From now on lines share the way of the messages, and their order.
pub(super) fn write_by(writer: &Arc<Writer>) {
    // A process is one worker.
    drop(WRITER.set(Arc::clone(writer)));
}

/// A logger for the `log` crate.
pub(crate) struct Shipper {
    /// Only for its rules: it writes nothing.
    filter: Logger,
    /// The channel, until the worker takes it over.
    early: EarlyChannel,
}

impl Shipper {
    pub(crate) fn new(filter: Logger, early: EarlyChannel) -> Self {
        Shipper { filter, early }
    }

    /// Puts a panic's message into the log before the hook that was there has its turn.
    pub(crate) fn hook_panics() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("<unnamed>").to_owned();
            let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
            log::error!(target: "panic", "thread '{name}' panicked{place}: {}", panic_text(panic.payload()));
            // It may end in an abort.
            log::logger().flush();
            before(panic);
        }));
    }
}

impl Log for Shipper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    /// Never waits for the master: a channel that is full takes no lines of the log, and says later how many
    /// it did not take.
    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let line = encode_record(record);
        match WRITER.get() {
            Some(writer) => writer.offer(&line),
            None => self.early.send(&line),
        }
    }

    fn flush(&self) {
        if let Some(writer) = WRITER.get() {
            writer.flush();
        }
    }
}
