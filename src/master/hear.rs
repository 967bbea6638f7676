//! What workers say on their channels: lines to facts for the core, and messages to their listeners.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Master;
use super::channel::{Pause, Rest};
use super::complaints::Complaint;
use super::token::Source;
use crate::account::{Kind, cut};
use crate::dispatch::Mail;
use crate::journal;
use crate::message::{FromWorker, Garbage, LONGEST_MESSAGE, Line, LogLine, Message};
use crate::node::{self, Heard, Peer};
use crate::supervisor::{Event, WorkerId};

/// Turns of reading that take all that a worker has said: it fits into one socket buffer, and one that goes on
/// writing, or after its end a grandchild that goes on writing must not hold us.
const LAST_TURNS: usize = 4;

/// Lines that are taken from one channel in one turn: short ones cost more than their bytes.
const LINES: usize = 512;

/// What a name of a request takes beside its letters.
const NAME_OVERHEAD: usize = 64;

/// What is done with a message for which the listeners have no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowded {
    /// Its worker waits.
    Pause,
    /// Its worker has ended: it is taken all the same, up to a limit.
    Squeeze,
}

/// Lines of one turn that could not be taken.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    first: Option<String>,
}

impl Master {
    pub(super) fn read_channel(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.outbox.flush();
        let must_wait = match process.channel.paused() {
            None => false,
            Some(Pause::Listeners(_)) => !self.dispatch.has_room(),
            // Once some are written the loop comes back.
            Some(Pause::Answers) => process.origin.account.is_spent(Kind::Answers),
        };
        if must_wait {
            return;
        }
        // What was left of another turn comes first; only then is there room for more.
        match self.take_lines(worker, Crowded::Pause) {
            Left::Nothing => {}
            Left::Lines => return self.unfinished.push(Source::Channel(worker)),
            Left::Paused => return,
        }
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let rest = process.channel.read(&mut self.buffer);
        match rest {
            Rest::More => self.unfinished.push(Source::Channel(worker)),
            Rest::Drained => {}
            Rest::Ended => self.note_torn_line(worker),
        }
        match self.take_lines(worker, Crowded::Pause) {
            Left::Lines if rest != Rest::More => self.unfinished.push(Source::Channel(worker)),
            Left::Lines | Left::Nothing | Left::Paused => {}
        }
    }

    /// Takes in all that the worker has said by now, and its end, however much the loop has still to read from others.
    pub(super) fn hear_out(&mut self, worker: WorkerId) {
        self.read_all_of_notify(worker);
        let mut rest = Rest::More;
        for _ in 0..LAST_TURNS {
            while self.take_lines(worker, Crowded::Pause) == Left::Lines {}
            let channel = self.processes.get_mut(&worker).map(|process| &mut process.channel);
            let Some(channel) = channel.filter(|channel| channel.paused().is_none()) else { break };
            rest = channel.read(&mut self.buffer);
            if rest != Rest::More {
                break;
            }
        }
        while self.take_lines(worker, Crowded::Pause) == Left::Lines {}
        if rest == Rest::More {
            self.unfinished.push(Source::Channel(worker));
        }
        self.look_for_exit(worker);
        self.events.push_back(Event::HeardOut { worker });
    }

    /// The listeners have room again.
    pub(super) fn resume_channels(&mut self) {
        let paused = self.processes.iter().filter(|(_, process)| process.channel.paused().is_some());
        self.unfinished.extend(paused.map(|(worker, _)| Source::Channel(*worker)));
    }

    pub(super) fn hear_last_words(&mut self, worker: WorkerId) {
        self.read_all_of_notify(worker);
        for _ in 0..LAST_TURNS {
            let Some(process) = self.processes.get_mut(&worker) else { return };
            let rest = process.channel.read(&mut self.buffer);
            while self.take_lines(worker, Crowded::Squeeze) == Left::Lines {}
            if rest != Rest::More {
                break;
            }
        }
        self.note_torn_line(worker);
        self.complain_of_the_rest(worker);
    }

    fn note_torn_line(&mut self, worker: WorkerId) {
        let torn =
            self.processes.get_mut(&worker).is_some_and(|process| process.channel.ends_within_a_line());
        if torn {
            let mut refused = Refused::default();
            refused.add("the worker ended within it".into());
            self.report_refused(worker, refused);
        }
    }

    /// Acts on the whole lines that have come, in order; only so many at a time.
    fn take_lines(&mut self, worker: WorkerId, crowded: Crowded) -> Left {
        let Some(process) = self.processes.get_mut(&worker) else { return Left::Nothing };
        let account = Arc::clone(&process.origin.account);
        // It must read the answers that it has before it may ask for more; last words ask for nothing.
        let must_read_first = || crowded == Crowded::Pause && account.is_spent(Kind::Answers);
        let before = process.channel.paused().is_some();
        let (first, mut lines) = (process.channel.resume(), process.channel.take_lines());
        let (mut mail, mut refused) = (Vec::new(), Refused::default());
        let mut held = first.and_then(|first| self.offer(first, crowded, &mut mail, &mut refused));
        for _ in 0..LINES {
            if held.is_some() || must_read_first() {
                break;
            }
            let Some(line) = lines.pop_front() else { break };
            let message = self.take_line(worker, line, &mut refused);
            held = message.and_then(|letter| self.offer(letter, crowded, &mut mail, &mut refused));
        }
        self.dispatch.push(mail);
        self.report_refused(worker, refused);
        let pause = held.map(|held| Pause::Listeners(Box::new(held)));
        let pause = pause.or_else(|| must_read_first().then_some(Pause::Answers));
        let left = self.leave(worker, pause, lines);
        match (before, left) {
            (false, Left::Paused) => self.events.push_back(Event::ChannelPaused { worker }),
            (true, Left::Nothing | Left::Lines) => self.events.push_back(Event::ChannelResumed { worker }),
            (false, Left::Nothing | Left::Lines) | (true, Left::Paused) => {}
        }
        left
    }

    fn leave(&mut self, worker: WorkerId, pause: Option<Pause>, lines: VecDeque<Line>) -> Left {
        let Some(process) = self.processes.get_mut(&worker) else { return Left::Nothing };
        let some = !lines.is_empty();
        process.channel.put_back(lines);
        match pause {
            Some(pause) => {
                process.channel.pause(pause);
                Left::Paused
            }
            None if some => Left::Lines,
            None => Left::Nothing,
        }
    }

    /// A line that the loop itself understands is acted upon; a message for a listener comes back.
    fn take_line(&mut self, worker: WorkerId, line: Line, refused: &mut Refused) -> Option<Mail> {
        let line = match line {
            Line::Text(text) => self.parse(worker, text),
            Line::Oversize(head) => Err(Garbage::seen(&head, "a line of more than 4 MiB")),
        };
        let line = match line {
            Ok(Heard::Line(line)) => Ok(line),
            Ok(Heard::Node(line)) => return self.take_node_line(worker, line),
            Err(garbage) => Err(garbage),
        };
        match line {
            Ok(FromWorker::Hello) => {
                self.converse(worker, Peer::asks);
                self.events.push_back(Event::SaidHello { worker });
            }
            Ok(FromWorker::Ready) => self.events.push_back(Event::SaidReady { worker }),
            Ok(FromWorker::Alive) => self.events.push_back(Event::SaidAlive { worker }),
            Ok(FromWorker::Failed { reason }) => self.note_failure(worker, reason),
            Ok(FromWorker::Listen { address }) => self.answer_listen(worker, address),
            Ok(FromWorker::Answers { to }) => self.note_answers(worker, to, refused),
            Ok(FromWorker::Panicked { text }) => self.note_panic(worker, text),
            Ok(FromWorker::User(message)) => return self.take_message(worker, message),
            Ok(FromWorker::RestartMe) => self.events.push_back(Event::SaidRestartMe { worker }),
            Ok(FromWorker::Log(line)) => self.put_in_log(worker, line),
            Ok(FromWorker::LogDropped { count }) => journal::lost_by_worker(count),
            Ok(FromWorker::Reserved(_)) => {
                self.complain(worker, Complaint::Strange, || {
                    ": a reserved line that this version has no use for".into()
                });
            }
            Err(garbage) => self.drop_line(worker, &garbage, refused),
        }
        None
    }

    /// By whoever the worker is: Node has words of its own.
    fn parse(&self, worker: WorkerId, text: Vec<u8>) -> Result<Heard, Garbage> {
        match self.processes.get(&worker).and_then(|process| process.node.as_ref()) {
            Some(_) => node::parse(text),
            None => FromWorker::parse(text).map(Heard::Line),
        }
    }

    /// It may have been a reply: whoever waits for it hears at once that it does not come.
    fn drop_line(&mut self, worker: WorkerId, garbage: &Garbage, refused: &mut Refused) {
        let cause = garbage.to_string();
        self.drop_reply(worker, garbage.cmd.as_deref(), garbage.request, &cause);
        refused.add(cause);
    }

    fn put_in_log(&self, worker: WorkerId, line: LogLine) {
        if let Some(process) = self.processes.get(&worker) {
            journal::sent(&process.origin, line);
        }
    }

    fn note_failure(&mut self, worker: WorkerId, reason: String) {
        let Some(process) = self.processes.get(&worker) else { return };
        let reason = process.origin.account.keep_text(Kind::Reason, reason);
        self.events.push_back(Event::SaidFailed { worker, reason });
    }

    /// A name is kept as long as the worker lives: there is room for what a program has, and no more.
    fn note_answers(&mut self, worker: WorkerId, name: String, refused: &mut Refused) {
        let Some(process) = self.processes.get(&worker) else { return };
        if self.requests.does_echo(worker, &name) {
            return;
        }
        if process.origin.account.admit(Kind::Names, NAME_OVERHEAD + name.len()) {
            self.requests.note_echo(worker, name);
        } else {
            refused.add("PROTEUS_ANSWERS: the names of its requests are too many or too long".into());
        }
    }

    fn note_panic(&mut self, worker: WorkerId, mut text: String) {
        cut(&mut text, LONGEST_MESSAGE);
        self.complain(worker, Complaint::HandlerPanicked, || format!(": a message handler panicked: {text}"));
        if let Some(process) = self.processes.get_mut(&worker) {
            process.handler_panics += 1;
        }
    }

    /// A user's message from a worker, in whatever dialect it came: counted, and given to whoever waits for it.
    pub(super) fn take_message(&mut self, worker: WorkerId, message: Message) -> Option<Mail> {
        let process = self.processes.get_mut(&worker)?;
        process.messages_in += 1;
        if process.node.is_some() && node::says_ready(&message) {
            self.events.push_back(Event::SaidReady { worker });
        }
        let from = process.outbox.worker();
        let message = self.take_reply(worker, message)?;
        self.audience.has(message.cmd()).then_some(Mail { from, message })
    }

    /// Adds a message to those for the listeners' thread, or gives it back if its worker has to wait.
    fn offer(
        &mut self,
        letter: Mail,
        crowded: Crowded,
        mail: &mut Vec<Mail>,
        refused: &mut Refused,
    ) -> Option<Mail> {
        match crowded {
            Crowded::Pause if !self.dispatch.has_room() => return Some(letter),
            Crowded::Squeeze if self.dispatch.is_overfull() => {
                refused.add("its worker has ended, and the listeners are too far behind".into());
                return None;
            }
            Crowded::Pause | Crowded::Squeeze => {}
        }
        self.dispatch.reserve(&letter);
        mail.push(letter);
        None
    }

    /// Counts each, and says it once in a while: a worker that floods its channel must not flood the log as well.
    fn report_refused(&mut self, worker: WorkerId, refused: Refused) {
        let Some(first) = refused.first else { return };
        self.peers.count_dropped(refused.count);
        let Some(process) = self.processes.get(&worker) else { return };
        process.origin.account.count_dropped(refused.count);
        self.complain_of(worker, Complaint::LinesDropped, refused.count, |count| {
            format!(": lines on its channel dropped: {count}; the last for this: {first}")
        });
    }
}

/// What became of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Lines for the next turn.
    Lines,
    Paused,
}

impl Refused {
    fn add(&mut self, cause: String) {
        self.count += 1;
        self.first.get_or_insert(cause);
    }
}
