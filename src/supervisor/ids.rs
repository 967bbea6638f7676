//! The names by which the core knows things: ids that are never reused, and moments without a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use crate::config::WORKERS;

/// Time since the master started. Monotonic: the core takes it as an argument and reads no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Duration);

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(span))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(pub(crate) u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A worker process, from 1. The pid is a detail of the driver.
    WorkerId
);
id!(
    /// Counts restarts, from 1. Names the program that a worker runs.
    Generation
);
id!(
    /// A rolling restart, from 1.
    RestartId
);
id!(
    /// Somebody who waits for the answer to an order; chosen by the driver.
    Ticket
);

/// A number of workers that a cluster can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headcount(usize);

impl Headcount {
    /// `None` outside the range that the setting `worker` has.
    pub(crate) fn new(workers: usize) -> Option<Self> {
        WORKERS.contains(&workers).then_some(Headcount(workers))
    }

    pub(crate) fn get(self) -> usize {
        self.0
    }
}

id!(
    /// A request to the workers, from 1. It travels with the question, and back with the reply.
    RequestNumber
);

impl RequestNumber {
    pub(super) const FIRST: RequestNumber = RequestNumber(1);

    /// Hands out this number and moves on to the next.
    pub(super) fn take(&mut self) -> RequestNumber {
        let taken = *self;
        self.0 += 1;
        taken
    }
}

impl WorkerId {
    pub(super) const FIRST: WorkerId = WorkerId(1);

    /// Hands out this id and moves on to the next.
    pub(super) fn take(&mut self) -> WorkerId {
        let taken = *self;
        self.0 += 1;
        taken
    }
}

impl Generation {
    pub(crate) const FIRST: Generation = Generation(1);

    pub(super) fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl RestartId {
    pub(super) fn next(self) -> RestartId {
        RestartId(self.0 + 1)
    }
}
