//! Two threads share the channel: one reads it, and runs the handlers of what it read itself, so that an answer
//! takes no detour over another thread. When handlers take long the other one reads on in its place, so that
//! they delay neither the order to disconnect nor a listener that was asked for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lock;
use crate::message::Message;

/// How often the one that stands by looks whether handlers take long, while messages come.
const LOOK: Duration = Duration::from_millis(2);
/// After so many looks without a message it sleeps until the next one.
const LOOKS: u32 = 16;
/// What may wait for the handlers. Past it the channel is left unread, and the master's queue fills: whoever sends
/// there is told.
const ROOM: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Relay {
    post: Mutex<Post>,
    changed: Condvar,
}

#[derive(Default)]
struct Post {
    reading: Reading,
    running: Running,
    /// Messages that no handler has seen, in the order they came.
    inbox: VecDeque<Message>,
    /// Their size.
    size: usize,
    /// Times that handlers were begun with.
    runs: u64,
    poked: Poked,
    stand_by: StandBy,
}

/// Whether a handler was registered since the last look at what waits for one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Poked {
    #[default]
    No,
    Yes,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reading {
    /// Since the handlers were begun with this often.
    Nobody {
        run: u64,
    },
    #[default]
    Somebody,
    Ended,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Running {
    #[default]
    Nobody,
    Somebody,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum StandBy {
    #[default]
    Asleep,
    Watching,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Read,
    /// The handlers, for messages that waited for them.
    Run,
    StandBy,
    Leave,
}

/// As whom a thread runs handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The other one may read on in its place.
    Reader,
    /// The other one reads.
    Guest,
}

impl Relay {
    /// A message has come.
    pub(super) fn put(&self, message: Message) {
        let mut post = self.post();
        post.size += message.size();
        post.inbox.push_back(message);
    }

    /// A handler was registered: messages may have waited for it.
    pub(super) fn poke(&self) {
        self.post().poked = Poked::Yes;
        self.changed.notify_all();
    }

    /// Runs the handlers of what has come, unless the other thread does: it takes these as well.
    pub(super) fn run(&self, part: Part, mut handle: impl FnMut(Option<Message>)) -> Next {
        let mut post = self.post();
        if !post.has_work() || post.running == Running::Somebody {
            return match part {
                Part::Reader => self.wait_for_room(post),
                Part::Guest => Next::StandBy,
            };
        }
        let run = self.begin(&mut post, part);
        while post.has_work() {
            let messages = std::mem::take(&mut post.inbox);
            post.size = 0;
            post.poked = Poked::No;
            drop(post);
            handle(None);
            messages.into_iter().map(Some).for_each(&mut handle);
            post = self.post();
        }
        post.running = Running::Nobody;
        self.stop(post, run)
    }

    fn begin(&self, post: &mut Post, part: Part) -> u64 {
        post.running = Running::Somebody;
        post.runs += 1;
        if part == Part::Reader {
            post.reading = Reading::Nobody { run: post.runs };
            if post.stand_by == StandBy::Asleep {
                post.stand_by = StandBy::Watching;
                self.changed.notify_all();
            }
        }
        post.runs
    }

    fn stop(&self, mut post: MutexGuard<'_, Post>, run: u64) -> Next {
        if post.reading == (Reading::Nobody { run }) {
            post.reading = Reading::Somebody;
            return Next::Read;
        }
        drop(post);
        // The reader may wait for room.
        self.changed.notify_all();
        Next::StandBy
    }

    /// With the reader's part, waits while too much waits for handlers that the other thread runs.
    fn wait_for_room(&self, mut post: MutexGuard<'_, Post>) -> Next {
        while post.size > ROOM && post.running == Running::Somebody {
            post = self.wait(post);
        }
        Next::Read
    }

    /// Waits until something falls to this thread.
    pub(super) fn stand_by(&self) -> Next {
        let mut post = self.post();
        let (mut seen, mut idle) = (post.runs, 0);
        loop {
            match post.reading {
                Reading::Ended => return Next::Leave,
                Reading::Nobody { run } if run == seen => {
                    post.reading = Reading::Somebody;
                    return Next::Read;
                }
                Reading::Somebody if post.poked == Poked::Yes && post.running == Running::Nobody => {
                    return Next::Run;
                }
                Reading::Somebody if post.runs == seen => idle += 1,
                Reading::Somebody | Reading::Nobody { .. } => idle = 0,
            }
            seen = post.runs;
            post = if idle < LOOKS {
                self.changed.wait_timeout(post, LOOK).unwrap_or_else(PoisonError::into_inner).0
            } else {
                idle = 0;
                post.stand_by = StandBy::Asleep;
                let mut woken = self.wait(post);
                woken.stand_by = StandBy::Watching;
                woken
            };
        }
    }

    /// The master is gone.
    pub(super) fn end(&self) {
        self.post().reading = Reading::Ended;
        self.changed.notify_all();
    }

    /// Waits until every message that has come is done with.
    pub(super) fn wait_until_done(&self) {
        let mut post = self.post();
        while post.running == Running::Somebody || post.has_work() {
            // Whoever runs them tells only the other thread; this is not worth a wake-up each time.
            post = self.changed.wait_timeout(post, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait<'a>(&self, post: MutexGuard<'a, Post>) -> MutexGuard<'a, Post> {
        self.changed.wait(post).unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self) -> MutexGuard<'_, Post> {
        lock(&self.post)
    }
}

impl Post {
    fn has_work(&self) -> bool {
        !self.inbox.is_empty() || self.poked == Poked::Yes
    }
}
