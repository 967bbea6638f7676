//! What happened: facts, in the past tense. The driver tells them one at a time.

use std::fmt;
use std::time::Duration;

use super::ids::{Headcount, Ticket, WorkerId};

/// A fact that the driver reports to the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The loop runs; the first workers may be spawned.
    Started,
    /// A process exists for this worker, and its program has begun.
    Spawned { worker: WorkerId },
    /// There is no process for this worker.
    SpawnFailed { worker: WorkerId, failure: SpawnFailure },
    /// The worker reads its channel and will say when it is ready.
    SaidHello { worker: WorkerId },
    /// The worker said that it serves.
    SaidReady { worker: WorkerId },
    /// The worker leaves by its own wish: it takes no more work, and its exit is planned.
    SaidLeaving { worker: WorkerId },
    /// The worker, which starts or stops, needs this much time from now.
    NeedsTime { worker: WorkerId, span: Duration },
    /// The worker said that its serving loop still turns.
    SaidAlive { worker: WorkerId },
    /// The master reads the worker's channel no longer, for want of room: whatever it says there must wait.
    ChannelPaused { worker: WorkerId },
    /// It reads that again.
    ChannelResumed { worker: WorkerId },
    /// The worker asked to be replaced.
    SaidRestartMe { worker: WorkerId },
    /// The worker's resident memory was looked at.
    MemorySampled { worker: WorkerId, bytes: u64 },
    /// The worker said why it is about to end.
    SaidFailed { worker: WorkerId, reason: String },
    /// The worker was reaped. The one fact that declares a worker dead. `stderr` holds its last lines
    /// there, oldest first; it is empty where nothing is captured.
    Exited { worker: WorkerId, status: ExitStatus, stderr: Vec<String> },
    /// All that the worker had said, and its end if it had ended, when that was ordered has been told.
    HeardOut { worker: WorkerId },
    /// The worker was told to leave.
    Told { worker: WorkerId },
    /// The worker should have got a signal, and the kernel does not let the master send it one.
    SignalDenied { worker: WorkerId, cause: String },
    /// Somebody gave an order; `ticket` waits for its answers.
    Ordered { order: Order, ticket: Option<Ticket> },
    /// Nobody waits for the answers to an order any more.
    CallerLeft { ticket: Ticket },
    /// Nothing waits on the sockets that this slot alone has.
    QueueSeenEmpty { slot: usize },
    /// The guard has ended, or another did not start: its status or its cause.
    GuardLost { how: String },
    /// A process that shares a listener has shut it down, for all. What has been done about it is told with it.
    ListenerShutDown { listener: String, remedy: Remedy },
    /// A deadline may have passed.
    TimePassed,
}

/// What users may ask for. Signals, API routes and `Handle` calls all become one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Restart,
    Shutdown(Origin),
    ForceShutdown,
    Scale(Scale),
    /// Replace this one worker.
    Recycle(WorkerId),
    ReopenLogs,
}

/// How many workers are wanted from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    To(Headcount),
    OneMore,
    OneFewer,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Restart => f.write_str("restart"),
            Order::Shutdown(_) => f.write_str("shutdown"),
            Order::ForceShutdown => f.write_str("force shutdown"),
            Order::Scale(Scale::To(workers)) => write!(f, "scale to {}", workers.get()),
            Order::Scale(Scale::OneMore) => f.write_str("scale by one more"),
            Order::Scale(Scale::OneFewer) => f.write_str("scale by one fewer"),
            Order::Recycle(worker) => write!(f, "restart of worker {worker}"),
            Order::ReopenLogs => f.write_str("reopen"),
        }
    }
}

/// Only signals escalate when they are repeated: a second Ctrl-C means "now".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Signal,
    Request,
}

/// How a process ended, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// Somebody else reaped it.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit status {code}"),
            ExitStatus::Signal(signal) => write!(f, "signal {signal}"),
            ExitStatus::Unknown => write!(f, "unknown status"),
        }
    }
}

/// What became of a listener that a worker has shut down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// It listens again: whoever has it goes on.
    SameSocket,
    /// There is another socket at its address: whoever has the old one serves nobody there.
    NewSocket,
    /// Neither could be done, for this reason.
    None(String),
}

/// Why there is no process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpawnFailure {
    pub(crate) kind: FailureKind,
    /// The step, the thing and the cause: "exec ./server: no such file or directory".
    pub(crate) reason: String,
}

/// Whether trying again may help by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Out of processes, memory or descriptors for now: no fault of the program.
    Passing,
    /// The program or the settings are at fault.
    Lasting,
}
