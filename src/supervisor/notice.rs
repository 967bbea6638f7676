//! What the log says, as data. Formatting is pure; the driver hands the lines to the logger.

use std::fmt;
use std::time::Duration;

use super::event::{ExitStatus, Order, Remedy};
use super::ids::{Generation, RestartId, WorkerId};
use super::recycle::Wear;
use super::slot::Cause;

/// A fact worth a line in the log: it names the thing, the cause and what happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    AllReady {
        workers: usize,
    },
    WorkerReady {
        worker: WorkerId,
        slot: usize,
        after: Duration,
    },
    Crashed {
        worker: WorkerId,
        slot: usize,
        cause: Cause,
        status: ExitStatus,
        next: Respawn,
        budget_left: u32,
        /// What the worker itself said of it.
        reason: Option<String>,
    },
    SpawnFailed {
        worker: WorkerId,
        slot: usize,
        reason: String,
        next: Respawn,
    },
    Stopped {
        worker: WorkerId,
        slot: usize,
        status: ExitStatus,
    },
    LeavesByItself {
        worker: WorkerId,
        slot: usize,
        next: Respawn,
    },
    ReadyTimedOut {
        worker: WorkerId,
        slot: usize,
        limit: Duration,
    },
    Hung {
        worker: WorkerId,
        slot: usize,
        limit: Duration,
        grace: Duration,
    },
    DisconnectTimedOut {
        worker: WorkerId,
        slot: usize,
        limit: Duration,
    },
    Unkillable {
        worker: WorkerId,
        slot: usize,
    },
    CannotSignal(CannotSignal),
    GuardLost(GuardLost),
    RestartBegan {
        id: RestartId,
        generation: Generation,
    },
    RestartQueued {
        id: RestartId,
    },
    CanaryReady {
        worker: WorkerId,
        canary: Duration,
    },
    Replaced {
        slot: usize,
        old: Option<WorkerId>,
        new: WorkerId,
    },
    Rollback(Rollback),
    RestartCompleted {
        id: RestartId,
        replaced: usize,
    },
    RestartAborted {
        id: RestartId,
        replaced: usize,
        total: usize,
        reason: String,
    },
    OrderRefused {
        order: Order,
    },
    Recycle(Recycle),
    ListenerShutDown(ShutListener),
    Scaled {
        from: usize,
        to: usize,
        /// `minReady`, where that is more than there will be.
        short_of: Option<usize>,
    },
    ScaleChangesNothing {
        workers: usize,
    },
    ShutdownBegan {
        workers: usize,
        limit: Duration,
    },
    ForceBegan {
        workers: usize,
    },
    GaveUp {
        crashes: u64,
        limit: u32,
    },
}

/// A listener that a worker has shut down for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShutListener {
    pub(crate) listener: String,
    pub(crate) remedy: Remedy,
    /// Who may have done it: some of those that are on their way out.
    pub(crate) leaving: Vec<WorkerId>,
}

/// What happens on the way back from a refused release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rollback {
    Begins {
        id: RestartId,
        replaced: usize,
        total: usize,
        reason: String,
        back_to: Generation,
    },
    /// A worker of the release that still sat in its seat.
    LosesWorker {
        slot: usize,
        reason: String,
    },
    /// A worker that should take a seat back has failed.
    Falters {
        slot: usize,
        reason: String,
        next: Respawn,
    },
}

/// The planned replacement of a single worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recycle {
    Begins { worker: WorkerId, slot: usize, wear: Wear },
    Fails { slot: usize, reason: String, next: Respawn },
    FindsNobody { worker: WorkerId },
}

impl fmt::Display for ShutListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShutListener { listener, remedy, leaving } = self;
        write!(f, "listener {listener}: a worker has shut it down for all (shutdown(2))")?;
        for id in leaving {
            write!(f, ", worker {id} on its way out?")?;
        }
        match remedy {
            Remedy::SameSocket => write!(f, "; it listens again"),
            Remedy::NewSocket => {
                write!(
                    f,
                    "; there is a new socket in its place, and the workers with the old one are replaced"
                )
            }
            Remedy::None(reason) => write!(f, "; nobody can connect: {reason}"),
        }
    }
}

impl fmt::Display for Recycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recycle::Begins { worker, slot, wear } => {
                write!(f, "worker {worker} (slot {slot}) is being replaced: {wear}")
            }
            Recycle::Fails { slot, reason, next } => {
                let stays = format_args!("the worker of slot {slot} stays for now");
                let after = next.after.as_millis();
                write!(f, "{stays}, its replacement failed: {reason}; next try in {after} ms")
            }
            Recycle::FindsNobody { worker } => write!(f, "there is no worker {worker} to restart"),
        }
    }
}

/// The guard has ended, or another did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuardLost {
    pub(crate) how: String,
    /// Until another is started.
    pub(crate) delay: Duration,
}

impl fmt::Display for GuardLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guard {}; starting another in {} ms", self.how, self.delay.as_millis())
    }
}

/// The kernel does not let the master send a signal to this worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CannotSignal {
    pub(crate) worker: WorkerId,
    pub(crate) slot: usize,
    pub(crate) cause: String,
}

impl fmt::Display for CannotSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CannotSignal { worker, slot, cause } = self;
        write!(
            f,
            "worker {worker} (slot {slot}) cannot be signalled: {cause}; it goes on until it leaves by itself"
        )
    }
}

/// The empty seat is filled again after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Respawn {
    pub(crate) after: Duration,
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Error,
    Warning,
    Info,
    Debug,
}

impl Notice {
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Notice::GaveUp { .. }
            | Notice::Unkillable { .. }
            | Notice::CannotSignal(_)
            | Notice::Rollback(Rollback::Begins { .. })
            | Notice::ListenerShutDown(ShutListener { remedy: Remedy::None(_), .. })
            | Notice::RestartAborted { .. } => Severity::Error,
            Notice::Crashed { .. }
            | Notice::SpawnFailed { .. }
            | Notice::ReadyTimedOut { .. }
            | Notice::Hung { .. }
            | Notice::DisconnectTimedOut { .. }
            | Notice::OrderRefused { .. }
            | Notice::GuardLost(_)
            | Notice::Recycle(Recycle::Fails { .. } | Recycle::FindsNobody { .. })
            | Notice::ListenerShutDown(_)
            | Notice::Scaled { short_of: Some(_), .. }
            | Notice::Rollback(Rollback::LosesWorker { .. } | Rollback::Falters { .. })
            | Notice::ForceBegan { .. } => Severity::Warning,
            Notice::AllReady { .. }
            | Notice::LeavesByItself { .. }
            | Notice::RestartBegan { .. }
            | Notice::RestartQueued { .. }
            | Notice::CanaryReady { .. }
            | Notice::RestartCompleted { .. }
            | Notice::Recycle(Recycle::Begins { .. })
            | Notice::Scaled { short_of: None, .. }
            | Notice::ScaleChangesNothing { .. }
            | Notice::ShutdownBegan { .. } => Severity::Info,
            Notice::WorkerReady { .. } | Notice::Stopped { .. } | Notice::Replaced { .. } => Severity::Debug,
        }
    }
}

impl fmt::Display for Respawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Duration::ZERO => write!(f, "respawning now"),
            after => write!(f, "respawning in {} ms", after.as_millis()),
        }
    }
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rollback::Begins { id, replaced, total, reason, back_to } => write!(
                f,
                "restart {id} fails with {replaced} of {total} workers replaced: {reason}; rolling back to generation {back_to}"
            ),
            Rollback::LosesWorker { slot, reason } => {
                write!(f, "{reason}; slot {slot} goes back to the generation before")
            }
            Rollback::Falters { slot, reason, next } => {
                write!(f, "slot {slot} is not rolled back yet: {reason}; {next}")
            }
        }
    }
}

/// So many workers, in words.
struct Workers(usize);

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} worker{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::AllReady { workers: 1 } => write!(f, "the worker is ready"),
            Notice::AllReady { workers } => write!(f, "all {workers} workers are ready"),
            Notice::WorkerReady { worker, slot, after } => {
                write!(f, "worker {worker} (slot {slot}) is ready after {} ms", after.as_millis())
            }
            Notice::Crashed { worker, slot, cause, status, next, budget_left, reason } => {
                write!(f, "worker {worker} (slot {slot}) {cause}: {status}")?;
                if let Some(reason) = reason {
                    write!(f, " ({reason})")?;
                }
                write!(f, "; {next}, {budget_left} replacements left")
            }
            Notice::SpawnFailed { worker, slot, reason, next } => {
                write!(f, "worker {worker} (slot {slot}) could not be started: {reason}; {next}")
            }
            Notice::Stopped { worker, slot, status } => {
                write!(f, "worker {worker} (slot {slot}) has left: {status}")
            }
            Notice::LeavesByItself { worker, slot, next } => {
                write!(f, "worker {worker} (slot {slot}) leaves by its own wish; {next}")
            }
            Notice::ReadyTimedOut { worker, slot, limit } => {
                write!(
                    f,
                    "worker {worker} (slot {slot}) was not ready within {} ms; killing it",
                    limit.as_millis()
                )
            }
            Notice::Hung { worker, slot, limit, grace } => write!(
                f,
                "worker {worker} (slot {slot}) has said nothing for {} ms and counts as hung; SIGABRT now, SIGKILL in {} ms",
                limit.as_millis(),
                grace.as_millis()
            ),
            Notice::DisconnectTimedOut { worker, slot, limit } => write!(
                f,
                "worker {worker} (slot {slot}) has not left within {} ms; killing its process group",
                limit.as_millis()
            ),
            Notice::Unkillable { worker, slot } => {
                write!(
                    f,
                    "worker {worker} (slot {slot}) survives SIGKILL (stuck in the kernel?); going on without it"
                )
            }
            Notice::GuardLost(lost) => lost.fmt(f),
            Notice::CannotSignal(denied) => denied.fmt(f),
            Notice::RestartBegan { id, generation } => {
                write!(f, "restart {id} begins: rolling to generation {generation}")
            }
            Notice::RestartQueued { id } => write!(
                f,
                "restart {id} is remembered and begins when the running one is over and older workers have left"
            ),
            Notice::CanaryReady { worker, canary } => write!(
                f,
                "worker {worker} is the canary and is ready; it must stay up for {} ms before the rest follow",
                canary.as_millis()
            ),
            Notice::Replaced { slot, old: Some(old), new } => {
                write!(f, "worker {new} takes slot {slot}; worker {old} is told to leave")
            }
            Notice::Replaced { slot, old: None, new } => {
                write!(f, "worker {new} takes the empty slot {slot}")
            }
            Notice::Rollback(rollback) => rollback.fmt(f),
            Notice::RestartCompleted { id, replaced } => {
                write!(f, "restart {id} completed: {} replaced", Workers(*replaced))
            }
            Notice::RestartAborted { id, replaced, total, reason } => {
                write!(f, "restart {id} aborted with {replaced} of {total} workers replaced: {reason}")
            }
            Notice::OrderRefused { order } => write!(f, "{order} refused: a shutdown has begun"),
            Notice::Recycle(recycle) => recycle.fmt(f),
            Notice::ListenerShutDown(shut) => shut.fmt(f),
            Notice::Scaled { from, to, short_of: None } => {
                write!(f, "scaling from {from} to {}", Workers(*to))
            }
            Notice::Scaled { from, to, short_of: Some(least) } => {
                let to = Workers(*to);
                write!(f, "scaling from {from} to {to}; /ready will answer 503: minReady is {least}")
            }
            Notice::ScaleChangesNothing { workers } => {
                let are = if *workers == 1 { "is" } else { "are" };
                write!(f, "nothing to scale: there {are} {} already", Workers(*workers))
            }
            Notice::ShutdownBegan { workers, limit } => {
                let (workers, limit) = (Workers(*workers), limit.as_millis());
                write!(f, "shutting down: {workers} may take {limit} ms to finish the work in hand")
            }
            Notice::ForceBegan { workers } => {
                write!(f, "forced shutdown: killing {}", Workers(*workers))
            }
            Notice::GaveUp { crashes, limit } => write!(
                f,
                "giving up: no worker is ready and all {limit} crash replacements (maxForkCount) are used up after {crashes} crashes"
            ),
        }
    }
}
