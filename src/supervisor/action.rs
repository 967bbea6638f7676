//! What to do about it: orders to the driver, in the imperative. The driver chooses nothing.

use super::ids::{Generation, Ticket, WorkerId};
use super::notice::Notice;
use super::slot::{LastExit, Notification};

/// One thing that the driver does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process of this generation's program in this slot.
    /// Answered by `Event::Spawned` or `Event::SpawnFailed`.
    Spawn { worker: WorkerId, slot: usize, generation: Generation },
    /// Ask the worker to stop accepting, finish its work and exit. Answered by `Event::Told`, and by
    /// `Event::SignalDenied` before that.
    Disconnect { worker: WorkerId, by: Notification },
    /// Take in all that the worker has said by now, and its end if it has ended. Answered by `Event::HeardOut`, after that.
    HearOut { worker: WorkerId },
    /// SIGABRT to the worker, so that a stack or a core is had of it.
    Abort { worker: WorkerId },
    /// SIGKILL to the worker and its whole process group. Where that is not allowed: `Event::SignalDenied`.
    Kill { worker: WorkerId },
    /// Close the master's copies of the listening sockets, so that newcomers are refused.
    CloseListeners,
    /// Drop listeners bound on demand that no worker of this or a later generation asked for.
    ReleaseListeners { unused_since: Generation },
    /// Let new connections to sockets of which each slot has one go to these slots alone.
    Steer { slots: Vec<usize> },
    /// See whether anything waits on the sockets that this slot alone has. Answered by `Event::QueueSeenEmpty`, or not
    /// at all.
    LookAtQueue { slot: usize },
    /// Close the sockets that this slot alone has: it was given up, and nobody is left in it.
    CloseSlot { slot: usize },
    /// Let go of what this generation alone has, the program that it runs above all: nobody is started with it any more.
    ForgetGeneration { generation: Generation },
    /// Start another guard for the workers that there are. Answered by `Event::GuardLost` where that fails.
    StartGuard,
    /// Open the log file anew.
    ReopenLogs,
    /// Answer somebody who gave an order.
    Reply { ticket: Ticket, reply: Reply },
    /// Put it in the log.
    Report(Notice),
    /// Every worker is reaped (or given up on): leave the loop. Who waits for that is told
    /// when all is given back.
    Finish(Ending),
}

/// The answers to an order: at once whether it is taken; for a restart, later, how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Accepted,
    /// A shutdown has begun.
    Refused,
    /// There is no such worker.
    Unknown,
    Ended(Verdict),
}

/// How a rolling restart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Completed,
    Aborted {
        reason: String,
        /// The replacement that failed; nobody when a shutdown came first, or an old worker cannot be told to leave.
        failed: Option<LastExit>,
    },
}

/// How the cluster ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Graceful,
    Forced,
    GaveUp,
    /// The very first spawn failed for a reason that lasts.
    CouldNotStart {
        reason: String,
    },
}
