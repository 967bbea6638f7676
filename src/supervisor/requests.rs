//! Requests that wait for replies: who still owes one, until when, and which message is the reply to which.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::ids::{Moment, RequestNumber, WorkerId};

/// All requests that are not settled.
#[derive(Debug)]
pub(crate) struct Requests {
    open: BTreeMap<RequestNumber, Open>,
    next: RequestNumber,
    /// The names for which a worker said that it sends the number of the request back.
    echoes: BTreeMap<WorkerId, BTreeSet<String>>,
}

#[derive(Debug)]
struct Open {
    cmd: String,
    due: Moment,
    /// Never empty.
    owing: BTreeSet<WorkerId>,
}

/// Replies could not be told from those to an earlier request of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooBusy;

/// What a worker's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hearing {
    Reply(RequestNumber),
    /// A reply that nobody waits for any more.
    Late,
    /// An ordinary message.
    Message,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Requests { open: BTreeMap::new(), next: RequestNumber::FIRST, echoes: BTreeMap::new() }
    }

    /// A new request to these workers. One to nobody is settled at once and is never open.
    pub(crate) fn open(
        &mut self,
        cmd: &str,
        due: Moment,
        workers: impl IntoIterator<Item = WorkerId>,
    ) -> Result<RequestNumber, TooBusy> {
        let owing: BTreeSet<WorkerId> = workers.into_iter().collect();
        let mut earlier = self.open.values().filter(|open| open.cmd == cmd);
        if earlier.any(|open| open.owing.intersection(&owing).any(|worker| !self.does_echo(*worker, cmd))) {
            return Err(TooBusy);
        }
        let number = self.next.take();
        if !owing.is_empty() {
            self.open.insert(number, Open { cmd: cmd.to_owned(), due, owing });
        }
        Ok(number)
    }

    /// The worker will send the number back with its replies of this name. The driver bounds what it keeps so.
    pub(crate) fn note_echo(&mut self, worker: WorkerId, cmd: String) {
        self.echoes.entry(worker).or_default().insert(cmd);
    }

    /// What a message of the worker is, by its name and the number of a request in it. A reply settles the
    /// worker's part.
    pub(crate) fn hear(&mut self, worker: WorkerId, cmd: Option<&str>, number: Option<u64>) -> Hearing {
        let found = match (cmd, number) {
            (_, Some(number)) => match self.open.get(&RequestNumber(number)) {
                Some(open) if open.owing.contains(&worker) => RequestNumber(number),
                Some(_) | None => return Hearing::Late,
            },
            // By the name alone: to the earliest, unless this worker would have sent the number.
            (Some(cmd), None) if !self.open.is_empty() && !self.does_echo(worker, cmd) => {
                let mut open = self.open.iter();
                match open.find(|(_, open)| open.cmd == cmd && open.owing.contains(&worker)) {
                    Some((number, _)) => *number,
                    None => return Hearing::Message,
                }
            }
            (Some(_) | None, None) => return Hearing::Message,
        };
        self.settle(found, worker);
        Hearing::Reply(found)
    }

    /// The worker owes no reply to this request any more.
    pub(crate) fn settle(&mut self, number: RequestNumber, worker: WorkerId) {
        if let Some(open) = self.open.get_mut(&number) {
            open.owing.remove(&worker);
            if open.owing.is_empty() {
                self.open.remove(&number);
            }
        }
    }

    /// The worker can answer nothing any more: the requests to which it owed a reply.
    pub(crate) fn lose(&mut self, worker: WorkerId) -> Vec<RequestNumber> {
        self.echoes.remove(&worker);
        let owed = self.open.iter().filter(|(_, open)| open.owing.contains(&worker));
        let owed: Vec<RequestNumber> = owed.map(|(number, _)| *number).collect();
        for number in &owed {
            self.settle(*number, worker);
        }
        owed
    }

    /// Takes out the requests whose time is over, with those who did not answer.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<(RequestNumber, BTreeSet<WorkerId>)> {
        if self.next_deadline().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let (over, open) = mem::take(&mut self.open).into_iter().partition(|(_, open)| open.due <= now);
        self.open = open;
        let over: BTreeMap<RequestNumber, Open> = over;
        over.into_iter().map(|(number, open)| (number, open.owing)).collect()
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&mut self, number: RequestNumber) {
        self.open.remove(&number);
    }

    pub(crate) fn is_open(&self, number: RequestNumber) -> bool {
        self.open.contains_key(&number)
    }

    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.open.values().map(|open| open.due).min()
    }

    /// Whether it has said so.
    pub(crate) fn does_echo(&self, worker: WorkerId, cmd: &str) -> bool {
        self.echoes.get(&worker).is_some_and(|names| names.contains(cmd))
    }
}
