//! Orders to a cluster from any thread.
#![warn(clippy::disallowed_macros)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mio::Waker;
use serde::Serialize;

use crate::ask::Ask;
use crate::config::WORKERS;
use crate::dispatch::Audience;
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Outgoing};
use crate::meter::Meter;
use crate::peers::{Peers, WorkerInfo};
use crate::principal::{By, CallId};
use crate::status::{ExitRecord, Status};
use crate::supervisor::{Ending, Headcount, Order, Origin, Reply, Scale, Ticket, Verdict, WorkerId};

/// What other threads ask of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    Order {
        order: Order,
        by: By,
        ticket: Ticket,
        reply: Sender<Word>,
    },
    /// Nobody waits for the answers to this order any more.
    Left(Ticket),
    Look {
        reply: Sender<Status>,
    },
    Ask(Ask),
    /// A caller of the API is there, and waits.
    CallBegan(CallId),
    /// It has its answer, or has left: nothing is held for it any more.
    CallEnded(CallId),
    /// The resident bytes of workers.
    Memory(Vec<(WorkerId, u64)>),
}

/// What the loop says to somebody who gave an order.
#[derive(Debug)]
pub(crate) enum Word {
    Reply(Reply),
    /// The cluster has ended and everything is given back: the last word.
    Over(Ending),
}

/// Gives orders to a cluster and looks at it, from any thread.
///
/// Orders given before [`Cluster::run`](crate::Cluster::run) wait for it; once the cluster has ended
/// they return an error. None of them blocks.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    next_ticket: Arc<AtomicU64>,
    waker: Arc<Waker>,
    first: Arc<First>,
    meter: Arc<Mutex<Meter>>,
    peers: Arc<Peers>,
    audience: Arc<Audience>,
    worker_timeout: Duration,
    refused_calls: Arc<AtomicU64>,
}

/// What there is to see before the loop runs.
struct First {
    status: Status,
    running: OnceLock<()>,
}

/// How a rolling restart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestartOutcome {
    /// Every slot has a ready worker of the new generation, and the old ones have been told to go.
    Completed,
    /// A replacement failed, or a shutdown came first. After a failure every worker is of the generation before,
    /// and ready: those that had been replaced have been rolled back.
    #[non_exhaustive]
    Aborted {
        /// Which worker failed and how, or `shutdown`.
        reason: String,
        /// How the failed replacement ended: its cause, exit status and last lines on stderr. `None` when a
        /// shutdown came first.
        failed: Option<ExitRecord>,
    },
}

/// A rolling restart that was asked for.
#[derive(Debug)]
pub struct Restart {
    replies: Receiver<Word>,
    ticket: Ticket,
    commands: Sender<Command>,
}

/// Whether an order was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Accepted,
    ShuttingDown,
    /// There is no such worker.
    Unknown,
}

/// What somebody hears who waits for the end of what was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A shutdown had begun.
    Refused,
    StillRunning,
    Restarted(RestartOutcome),
    Over(Ending),
}

/// How long the loop may take to say whether it takes an order: it never blocks, so this is only
/// reached on a machine that stands still.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

impl Handle {
    pub(crate) fn new(
        commands: Sender<Command>,
        waker: Arc<Waker>,
        first: Status,
        peers: Arc<Peers>,
        audience: Arc<Audience>,
        worker_timeout: Duration,
    ) -> Self {
        let first = Arc::new(First { status: first, running: OnceLock::new() });
        let (next_ticket, meter, refused_calls) = (Arc::default(), Arc::default(), Arc::default());
        Handle { commands, next_ticket, waker, first, meter, peers, audience, worker_timeout, refused_calls }
    }

    /// From now on the loop answers.
    pub(crate) fn start(&self) {
        // A cluster runs once; a second call would say the same.
        let _ = self.first.running.set(());
    }

    /// Rolls the workers over to what the program's path leads to now.
    ///
    /// Replacements come first: one on trial, for `canary`, then the rest, `surge` at a time. A replacement that fails
    /// aborts the restart, and those made before it are rolled back. During a restart, its rollback included, it is
    /// remembered once and runs after it.
    pub fn restart(&self) -> Result<Restart> {
        self.order(Order::Restart)
    }

    /// Lets the workers finish their work and ends the cluster, at the disconnect time-out by force.
    pub fn shutdown(&self) -> Result<()> {
        self.order(Order::Shutdown(Origin::Request)).map(drop)
    }

    /// Kills the workers and ends the cluster.
    pub fn force_shutdown(&self) -> Result<()> {
        self.order(Order::ForceShutdown).map(drop)
    }

    /// Changes the number of workers, from 1 to 4096, until the next such order or the end of the cluster.
    ///
    /// New workers run the generation that serves; those that go are the ones in the highest slots, and finish
    /// their work first. Fewer than the setting `minReady` is allowed: the cluster is then not ready.
    ///
    /// # Errors
    ///
    /// [`is_setting`](Error::is_setting) for a number out of range, [`is_ended`](Error::is_ended) once the
    /// cluster has ended.
    pub fn scale(&self, workers: usize) -> Result<()> {
        self.order(Order::Scale(Scale::To(headcount(workers)?))).map(drop)
    }

    /// Opens the log file anew, for whoever has moved the old one. Without a log file nothing happens.
    pub fn reopen_logs(&self) -> Result<()> {
        self.order(Order::ReopenLogs).map(drop)
    }

    /// Sends a message to every live worker that was not told to disconnect. Never blocks.
    ///
    /// Any value that serializes to JSON; workers get it in the order of sending. Sent before the cluster runs,
    /// it waits for the first workers.
    ///
    /// # Errors
    ///
    /// [`is_full`](Error::is_full) where a worker does not read and 8 MiB wait for it already (the others get the
    /// message), [`is_message`](Error::is_message) where it cannot be sent: a reserved `cmd` (`PROTEUS_…`,
    /// `NODE_…`) or more than 4 MiB.
    pub fn send_message(&self, message: impl Serialize) -> Result<()> {
        self.send_to_all(&message).map(drop)
    }

    /// The same; how many workers that were.
    pub(crate) fn send_to_all(&self, message: &impl Serialize) -> Result<usize> {
        self.peers.send_to_all(&Outgoing::of(message)?)
    }

    /// How long callers of the API wait for replies where they do not say.
    pub(crate) fn worker_timeout(&self) -> Duration {
        self.worker_timeout
    }

    /// Sends a message to one worker; as [`send_message`](Handle::send_message) otherwise.
    ///
    /// Fails with [`is_gone`](Error::is_gone) where there is no such worker, or it was told to disconnect.
    pub fn send_message_to(&self, worker: u64, message: impl Serialize) -> Result<()> {
        self.peers.send_to(worker, &Outgoing::of(&message)?)
    }

    /// Calls `listener` for each message of a worker whose `cmd` is this one, in the place of the listener that
    /// was there.
    ///
    /// Listeners run one at a time, in order, on a thread of their own. A slow one holds back the workers that
    /// send to listeners, and nothing else: their messages wait in the channels, and none is dropped. A panic in
    /// a listener is logged and counted (`listenerPanics` in the status) and goes no further.
    pub fn add_message_listener(
        &self,
        cmd: impl AsRef<str>,
        listener: impl Fn(&Message, &WorkerInfo) + Send + 'static,
    ) -> Result<()> {
        self.audience.set(cmd.as_ref(), listener)
    }

    /// Removes the listener of this `cmd`. Messages that nobody listens to are counted and forgotten.
    pub fn remove_message_listener(&self, cmd: impl AsRef<str>) -> Result<()> {
        self.audience.remove(cmd.as_ref())
    }

    /// Replaces one worker, by its id: the replacement comes first, then the worker is told to disconnect.
    ///
    /// It waits for others that are being replaced, and for a restart, which replaces it as well. A worker that is
    /// not there is named in the log.
    pub fn restart_worker(&self, worker: u64) -> Result<()> {
        self.order(Order::Recycle(WorkerId(worker))).map(drop)
    }

    /// The cluster as it stands. `cpuPercent` is since the previous look, whoever looked.
    pub fn status(&self) -> Result<Status> {
        if self.first.running.get().is_none() {
            return Ok(self.first.status.clone());
        }
        let (reply, answer) = channel();
        self.send(Command::Look { reply })?;
        let mut status = answer.recv().map_err(|_| Error::ended())?;
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).fill_in(&mut status);
        status.orders.refused_calls = self.refused_calls.load(Ordering::Relaxed);
        Ok(status)
    }

    /// The ids and pids of workers.
    pub(crate) fn processes(&self) -> Result<Vec<(u64, u32)>> {
        let (reply, answer) = channel();
        self.send(Command::Look { reply })?;
        let status = answer.recv().map_err(|_| Error::ended())?;
        Ok(status.workers.iter().filter_map(|row| Some((row.id, row.pid?))).collect())
    }

    pub(crate) fn tell_memory(&self, sizes: Vec<(WorkerId, u64)>) -> Result<()> {
        self.send(Command::Memory(sizes))
    }

    /// Gives an order and waits for the loop's word on it.
    pub(crate) fn order_and_hear(&self, order: Order, by: By) -> Result<Taken> {
        match self.order_by(order, by)?.replies.recv_timeout(ANSWER) {
            Ok(Word::Reply(Reply::Accepted | Reply::Ended(_)) | Word::Over(_)) => Ok(Taken::Accepted),
            Ok(Word::Reply(Reply::Refused)) => Ok(Taken::ShuttingDown),
            Ok(Word::Reply(Reply::Unknown)) => Ok(Taken::Unknown),
            Err(RecvTimeoutError::Timeout) => Err(Error::new(Kind::TimedOut, "the master does not answer")),
            Err(RecvTimeoutError::Disconnected) => Err(Error::ended()),
        }
    }

    /// Gives an order and waits for its end, at most `limit`.
    pub(crate) fn order_and_wait(&self, order: Order, by: By, limit: Duration) -> Result<Heard> {
        self.order_by(order, by)?.hear(limit)
    }

    fn order(&self, order: Order) -> Result<Restart> {
        self.order_by(order, By::PROGRAM)
    }

    fn order_by(&self, order: Order, by: By) -> Result<Restart> {
        let (reply, replies) = channel();
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        self.send(Command::Order { order, by, ticket, reply })?;
        Ok(Restart { replies, ticket, commands: self.commands.clone() })
    }

    /// A call of the API was refused.
    pub(crate) fn count_refused_call(&self) {
        self.refused_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// What is asked by this call from now on is waited for, until the call ends.
    pub(crate) fn begin_call(&self, call: CallId) -> Result<()> {
        self.send(Command::CallBegan(call))
    }

    pub(crate) fn end_call(&self, call: CallId) -> Result<()> {
        self.send(Command::CallEnded(call))
    }

    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::ended())?;
        self.waker.wake().map_err(|error| Error::start("waking the master", error))
    }
}

/// A number of workers that a cluster can have, or why it cannot.
pub(crate) fn headcount(workers: usize) -> Result<Headcount> {
    let (least, most) = (WORKERS.start(), WORKERS.end());
    let out_of_range = || Error::setting(format!("scale: {workers} is out of range ({least} to {most})"));
    Headcount::new(workers).ok_or_else(out_of_range)
}

impl Restart {
    /// Waits for the restart's end, at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`is_timeout`](Error::is_timeout) when it takes longer (ask again), [`is_ended`](Error::is_ended)
    /// when the cluster has ended or the outcome has been told already.
    pub fn wait(&self, timeout: Duration) -> Result<RestartOutcome> {
        match self.hear(timeout)? {
            Heard::Restarted(outcome) => Ok(outcome),
            Heard::Refused => Ok(RestartOutcome::Aborted { reason: "shutdown".into(), failed: None }),
            Heard::StillRunning => Err(Error::new(Kind::TimedOut, "the restart is still running")),
            Heard::Over(_) => Err(Error::ended()),
        }
    }

    fn hear(&self, limit: Duration) -> Result<Heard> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let left = deadline.map_or(limit, |at| at.saturating_duration_since(Instant::now()));
            return match self.replies.recv_timeout(left) {
                Ok(Word::Reply(Reply::Accepted)) => continue,
                Ok(Word::Reply(Reply::Refused)) => Ok(Heard::Refused),
                Ok(Word::Reply(Reply::Unknown)) => Err(Error::new(Kind::Gone, "there is no such worker")),
                Ok(Word::Reply(Reply::Ended(verdict))) => Ok(Heard::Restarted(RestartOutcome::of(verdict))),
                Ok(Word::Over(ending)) => Ok(Heard::Over(ending)),
                Err(RecvTimeoutError::Timeout) => Ok(Heard::StillRunning),
                Err(RecvTimeoutError::Disconnected) => Err(Error::ended()),
            };
        }
    }
}

impl Drop for Restart {
    /// Whoever waits no longer is kept nowhere. The loop need not hurry: the next order wakes it in any case.
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Left(self.ticket));
    }
}

impl RestartOutcome {
    fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Completed => RestartOutcome::Completed,
            Verdict::Aborted { reason, failed } => {
                RestartOutcome::Aborted { reason, failed: failed.map(ExitRecord::of) }
            }
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
