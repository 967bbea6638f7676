//! Requests: a message to every worker, and one result from each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::account::Held;
use crate::error::{Error, Kind, Result};
use crate::handle::{ANSWER, Command, Handle};
use crate::message::{Message, Outgoing};
use crate::peers::WorkerInfo;
use crate::principal::CallId;

/// A worker's part in a request: what it answered, or why it did not.
#[derive(Debug)]
pub struct Reply {
    worker: WorkerInfo,
    outcome: Result<Message>,
}

impl Reply {
    /// Whom was asked.
    pub fn worker(&self) -> &WorkerInfo {
        &self.worker
    }

    /// The reply. What a worker's `on_request` returned is its value under `msg`.
    pub fn message(&self) -> Option<&Message> {
        self.outcome.as_ref().ok()
    }

    /// Why there is none: [`is_gone`](Error::is_gone) where the worker ended first, [`is_timeout`](Error::is_timeout),
    /// [`is_full`](Error::is_full) where it does not read its channel, the text of a handler that failed, or why its
    /// reply was dropped: more than 8 MiB of this worker's wait for callers, or it was no JSON.
    pub fn error(&self) -> Option<&Error> {
        self.outcome.as_ref().err()
    }
}

/// A request on its way to the loop.
pub(crate) struct Ask {
    pub(crate) question: Outgoing,
    pub(crate) cmd: String,
    pub(crate) timeout: Duration,
    pub(crate) answers: Sender<Answer>,
    /// The call that waits for them.
    pub(crate) call: Option<CallId>,
}

/// What the loop says of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    One(WorkerInfo, Outcome),
    /// There was one from each.
    All,
    /// An earlier request of the same name could get the replies to this one.
    TooBusy,
}

/// What became of a worker's part.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With the room that it takes until the caller has it.
    Replied(Message, Held),
    /// It came, and could not be kept or read.
    Dropped(String),
    Died,
    TimedOut,
    QueueFull,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("cmd", &self.cmd).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Handle {
    /// Asks every live worker that was not told to disconnect, and waits for one result from each: in the order of
    /// worker ids, within `timeout`. A worker that has died is not waited for.
    ///
    /// The message is an object with a text under `cmd`. A worker's `on_request` of that name replies; so does one
    /// that simply sends back a message of the same name, as a plain program does.
    ///
    /// # Errors
    ///
    /// [`is_message`](Error::is_message) where the message has no `cmd`, or cannot be sent;
    /// [`is_busy`](Error::is_busy) where a request of the same name still runs and a worker asked by both is not
    /// known to tell its replies apart (`on_request` does); [`is_ended`](Error::is_ended).
    pub fn request(&self, message: impl Serialize, timeout: Duration) -> Result<Vec<Reply>> {
        self.request_for(None, message, timeout)
    }

    /// The same; it ends with the call.
    pub(crate) fn request_for(
        &self,
        call: Option<CallId>,
        message: impl Serialize,
        timeout: Duration,
    ) -> Result<Vec<Reply>> {
        let (question, cmd) = Outgoing::question(&message)?;
        let (answers, heard) = channel();
        self.send(Command::Ask(Ask { question, cmd, timeout, answers, call }))?;
        let until = Instant::now().checked_add(timeout.saturating_add(ANSWER));
        let mut replies = BTreeMap::new();
        loop {
            let left = until.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            match heard.recv_timeout(left) {
                Ok(Answer::One(worker, outcome)) => {
                    let (outcome, held) = outcome.read(worker);
                    replies.insert(worker.id(), (Reply { worker, outcome }, held));
                }
                Ok(Answer::All) => return Ok(replies.into_values().map(|(reply, _)| reply).collect()),
                Ok(Answer::TooBusy) => {
                    return Err(Error::new(Kind::Busy, "a request of the same name is still running"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::new(Kind::TimedOut, "the master does not answer"));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Error::ended()),
            }
        }
    }
}

impl Outcome {
    /// As the caller gets it, and the room that it takes until then.
    fn read(self, worker: WorkerInfo) -> (Result<Message>, Option<Held>) {
        let id = worker.id();
        let error = match self {
            Outcome::Replied(message, held) => match message.failure() {
                None => return (Ok(message), Some(held)),
                Some(text) => Error::new(Kind::Worker, format!("worker {id} failed: {text}")),
            },
            Outcome::Dropped(cause) => {
                Error::new(Kind::Worker, format!("worker {id}: its reply was dropped: {cause}"))
            }
            Outcome::Died => Error::new(Kind::Gone, format!("worker {id} ended before it replied")),
            Outcome::TimedOut => Error::new(Kind::TimedOut, format!("worker {id} did not reply in time")),
            Outcome::QueueFull => {
                Error::new(Kind::Full, format!("worker {id}: the queue is full, it was not asked"))
            }
        };
        (Err(error), None)
    }
}
