//! What the log says of a worker that does what it should not: a line a second of each kind.

use std::time::Instant;

use super::Master;
use crate::journal;
use crate::journal::throttle::{LeftOut, Throttle};
use crate::supervisor::WorkerId;

/// Of what a worker is told of in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Lines of its channel were dropped.
    LinesDropped,
    /// Lines to it were dropped: it does not read.
    LinesUnsent,
    /// What it asked to listen at cannot be had.
    ListenRefused,
    /// A reply of it was dropped: too many wait for their callers.
    ReplyDropped,
    /// A handler of it panicked.
    HandlerPanicked,
    /// It said what has no meaning here.
    Strange,
}

/// All that it was told of, and what it was not.
#[derive(Debug, Default)]
pub(super) struct Complaints([Throttle; 6]);

impl Complaints {
    fn of(&mut self, complaint: Complaint) -> &mut Throttle {
        &mut self.0[complaint as usize]
    }
}

impl Complaint {
    const ALL: [Complaint; 6] = [
        Complaint::LinesDropped,
        Complaint::LinesUnsent,
        Complaint::ListenRefused,
        Complaint::ReplyDropped,
        Complaint::HandlerPanicked,
        Complaint::Strange,
    ];

    fn level(self) -> log::Level {
        match self {
            Complaint::HandlerPanicked => log::Level::Error,
            Complaint::LinesDropped
            | Complaint::LinesUnsent
            | Complaint::ListenRefused
            | Complaint::ReplyDropped => log::Level::Warn,
            Complaint::Strange => log::Level::Debug,
        }
    }

    /// For the line that counts what was left out before its end.
    fn noun(self) -> &'static str {
        match self {
            Complaint::LinesDropped => "lines on its channel dropped",
            Complaint::LinesUnsent => "lines to it dropped",
            Complaint::ListenRefused => "requests to listen refused",
            Complaint::ReplyDropped => "replies dropped",
            Complaint::HandlerPanicked => "panics of message handlers",
            Complaint::Strange => "lines without a meaning here",
        }
    }
}

impl Master {
    /// Says it once, in a text that follows the worker's name; what comes within a second of the line before is counted, and told of with the next.
    pub(super) fn complain(&mut self, worker: WorkerId, complaint: Complaint, text: impl FnOnce() -> String) {
        self.complain_of(worker, complaint, 1, |count| format!("{}{}", text(), LeftOut(count - 1)));
    }

    /// The same of many at a time, by a text that says how many.
    pub(super) fn complain_of(
        &mut self,
        worker: WorkerId,
        complaint: Complaint,
        more: u64,
        text: impl FnOnce(u64) -> String,
    ) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if let Some(count) = process.complaints.of(complaint).count(Instant::now(), more) {
            say(worker, complaint, &text(count));
        }
    }

    /// At its end: how many of each kind no line has told of.
    pub(super) fn complain_of_the_rest(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        for complaint in Complaint::ALL {
            let rest = process.complaints.of(complaint).rest();
            if rest > 0 {
                say(worker, complaint, &format!(": more {} before its end: {rest}", complaint.noun()));
            }
        }
    }
}

fn say(worker: WorkerId, complaint: Complaint, text: &str) {
    let place = journal::Place { module: module_path!(), file: file!(), line: line!() };
    journal::write(complaint.level(), module_path!(), place, format_args!("worker {worker}{text}"));
}
