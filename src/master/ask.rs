//! Requests to the workers, carried out: the books are the core's, the lines and the callers are here.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use super::Master;
use super::complaints::Complaint;
use crate::account::Kind;
use crate::ask::{Answer, Ask, Outcome};
use crate::message::Message;
use crate::peers::WorkerInfo;
use crate::principal::CallId;
use crate::supervisor::{Hearing, RequestNumber, WorkerId};

/// Somebody who waits for replies.
#[derive(Debug)]
pub(super) struct Asking {
    answers: Sender<Answer>,
    call: Option<CallId>,
    /// Whom was asked; a worker that has ended since is known here alone.
    workers: BTreeMap<WorkerId, WorkerInfo>,
}

impl Master {
    pub(super) fn ask(&mut self, ask: Ask) {
        if ask.call.is_some_and(|call| !self.calls.contains(&call)) {
            return;
        }
        let outboxes = self.peers.all();
        let ids = outboxes.iter().map(|outbox| WorkerId(outbox.worker().id()));
        let Ok(number) = self.requests.open(&ask.cmd, self.now() + ask.timeout, ids) else {
            // Whoever asked may have gone, here and below; the answer is then nobody's.
            let _ = ask.answers.send(Answer::TooBusy);
            return;
        };
        let line = ask.question.numbered(number.0);
        let workers = outboxes.iter().map(|outbox| (WorkerId(outbox.worker().id()), outbox.worker()));
        self.asking
            .insert(number, Asking { answers: ask.answers, call: ask.call, workers: workers.collect() });
        for outbox in outboxes {
            if self.peers.post(&outbox, &line).is_err() {
                let worker = WorkerId(outbox.worker().id());
                self.requests.settle(number, worker);
                self.tell(number, worker, Outcome::QueueFull);
            }
        }
        self.finish_if_settled(number);
    }

    /// Nobody waits any more for what this call asked.
    pub(super) fn forget_questions(&mut self, call: CallId) {
        let gone = self.asking.iter().filter(|(_, asking)| asking.call == Some(call));
        let gone: Vec<RequestNumber> = gone.map(|(number, _)| *number).collect();
        for number in gone {
            self.requests.forget(number);
            self.asking.remove(&number);
        }
    }

    /// The message back, unless it is the reply to a request.
    pub(super) fn take_reply(&mut self, worker: WorkerId, message: Message) -> Option<Message> {
        match self.requests.hear(worker, message.cmd(), message.request()) {
            Hearing::Message => return Some(message),
            Hearing::Reply(number) => {
                let outcome = self.keep_reply(worker, message);
                self.tell(number, worker, outcome);
                self.finish_if_settled(number);
            }
            Hearing::Late => {}
        }
        None
    }

    /// A line was dropped that began like this: if it was a reply, it does not come.
    pub(super) fn drop_reply(
        &mut self,
        worker: WorkerId,
        cmd: Option<&str>,
        request: Option<u64>,
        cause: &str,
    ) {
        if let Hearing::Reply(number) = self.requests.hear(worker, cmd, request) {
            self.tell(number, worker, Outcome::Dropped(cause.to_owned()));
            self.finish_if_settled(number);
        }
    }

    /// It waits with the caller until all have replied, as far as its worker's account goes.
    fn keep_reply(&mut self, worker: WorkerId, message: Message) -> Outcome {
        let account = self.processes.get(&worker).map(|process| &process.origin.account);
        if let Some(held) = account.and_then(|account| account.take(Kind::Replies, message.size())) {
            return Outcome::Replied(message, held);
        }
        if let Some(account) = account {
            account.count_dropped(1);
        }
        self.peers.count_dropped(1);
        let cause =
            format!("more than {} MiB of its replies wait for their callers", Kind::Replies.most() >> 20);
        self.complain(worker, Complaint::ReplyDropped, || format!(": a reply was dropped: {cause}"));
        Outcome::Dropped(cause)
    }

    /// The worker will reply to nothing any more.
    pub(super) fn ask_no_more(&mut self, worker: WorkerId) {
        for number in self.requests.lose(worker) {
            self.tell(number, worker, Outcome::Died);
            self.finish_if_settled(number);
        }
    }

    /// Tells those whose time is over.
    pub(super) fn expire_requests(&mut self) {
        for (number, owing) in self.requests.expire(self.now()) {
            for worker in owing {
                self.tell(number, worker, Outcome::TimedOut);
            }
            self.finish_if_settled(number);
        }
    }

    fn tell(&mut self, number: RequestNumber, worker: WorkerId, outcome: Outcome) {
        let Some(asking) = self.asking.get(&number) else { return };
        let Some(info) = asking.workers.get(&worker) else { return };
        if asking.answers.send(Answer::One(*info, outcome)).is_err() {
            self.requests.forget(number);
        }
    }

    fn finish_if_settled(&mut self, number: RequestNumber) {
        if self.requests.is_open(number) {
            return;
        }
        if let Some(asking) = self.asking.remove(&number) {
            let _ = asking.answers.send(Answer::All);
        }
    }
}
