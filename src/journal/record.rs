//! A record on its way to the log thread.

use std::borrow::Cow;

use super::Place;

/// A line of the log, before anybody has formatted it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    level: log::Level,
    target: Cow<'static, str>,
    message: String,
    place: Place,
}

impl Record {
    /// Of the master's own code.
    pub(super) fn own(level: log::Level, target: &'static str, place: Place, message: String) -> Self {
        Record { level, target: target.into(), message, place }
    }

    /// Bytes that it holds beside itself.
    pub(super) fn heap(&self) -> usize {
        let target = match &self.target {
            Cow::Borrowed(_) => 0,
            Cow::Owned(text) => text.capacity(),
        };
        target + self.message.capacity()
    }

    /// The same as loggers know it.
    pub(super) fn tell(&self, tell: impl FnOnce(&log::Record<'_>)) {
        let mut builder = log::Record::builder();
        builder.level(self.level).target(&self.target);
        builder.module_path_static(Some(self.place.module)).file_static(Some(self.place.file));
        builder.line(Some(self.place.line));
        tell(&builder.args(format_args!("{}", self.message)).build());
    }
}
