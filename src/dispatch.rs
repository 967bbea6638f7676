//! Who listens to the workers' messages, and the thread that calls them.
//!
//! The loop offers messages; one thread calls the listeners in order. What waits is bounded by its size: past
//! that the loop leaves messages where they are, in the sockets of those who send, until there is room.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use mio::Waker;

use crate::error::{Error, Result, panic_text};
use crate::journal;
use crate::message::Message;
use crate::peers::WorkerInfo;
use crate::sys::signal::Mask;

/// What may wait for the listeners.
const ROOM: usize = 8 << 20;
/// Once so little is left the loop goes on.
const AIR: usize = ROOM / 2;
/// What may wait in all: the last words of workers that have exited are taken beyond the room.
const LAST_WORDS: usize = 2 * ROOM;
/// A message takes this much beside its own size.
const OVERHEAD: usize = size_of::<Mail>();

type Listener = Arc<Mutex<dyn Fn(&Message, &WorkerInfo) + Send>>;

/// The listeners by the `cmd` they listen to.
#[derive(Default)]
pub(crate) struct Audience {
    hall: RwLock<Hall>,
    panics: AtomicU64,
}

enum Hall {
    Open(HashMap<String, Listener>),
    /// The cluster has ended.
    Closed,
}

impl Default for Hall {
    fn default() -> Self {
        Hall::Open(HashMap::new())
    }
}

/// A message and who sent it.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) from: WorkerInfo,
    pub(crate) message: Message,
}

impl Audience {
    /// Replaces the one that was there.
    pub(crate) fn set(
        &self,
        cmd: &str,
        listener: impl Fn(&Message, &WorkerInfo) + Send + 'static,
    ) -> Result<()> {
        let listener: Listener = Arc::new(Mutex::new(listener));
        self.change(|all| all.insert(cmd.to_owned(), listener))
    }

    pub(crate) fn remove(&self, cmd: &str) -> Result<()> {
        self.change(|all| all.remove(cmd))
    }

    /// What is taken out is dropped after the lock, since its drop may do anything.
    fn change(&self, change: impl FnOnce(&mut HashMap<String, Listener>) -> Option<Listener>) -> Result<()> {
        let before = match &mut *self.hall.write().unwrap_or_else(PoisonError::into_inner) {
            Hall::Open(all) => change(all),
            Hall::Closed => return Err(Error::ended()),
        };
        drop(before);
        Ok(())
    }

    /// Listeners may hold a `Handle`, which holds us: the end lets go of them.
    fn close(&self) {
        let mut hall = self.hall.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *hall, Hall::Closed);
        drop(hall);
        drop(before);
    }

    pub(crate) fn has(&self, cmd: Option<&str>) -> bool {
        match (cmd, &*self.hall()) {
            (Some(cmd), Hall::Open(all)) => all.contains_key(cmd),
            (None, _) | (_, Hall::Closed) => false,
        }
    }

    fn listener(&self, cmd: &str) -> Option<Listener> {
        match &*self.hall() {
            Hall::Open(all) => all.get(cmd).cloned(),
            Hall::Closed => None,
        }
    }

    fn hall(&self) -> RwLockReadGuard<'_, Hall> {
        self.hall.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(SeqCst)
    }

    fn hear(&self, mail: &Mail) {
        let Some(cmd) = mail.message.cmd() else { return };
        // Removed meanwhile: nobody's message.
        let Some(listener) = self.listener(cmd) else { return };
        let call = || (*listener.lock().unwrap_or_else(PoisonError::into_inner))(&mail.message, &mail.from);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            self.panics.fetch_add(1, SeqCst);
            let text = panic_text(&*panic);
            journal::error!(
                "the listener of `{cmd}` panicked on a message of worker {}: {text}",
                mail.from.id()
            );
        }
    }
}

/// The loop's end of the queue to the listeners' thread.
pub(crate) struct Dispatch {
    shared: Arc<Shared>,
    over: Receiver<Over>,
}

/// Never sent: the channel's end is the thread's.
enum Over {}

struct Shared {
    audience: Arc<Audience>,
    queue: Mutex<Queue>,
    more: Condvar,
    /// Size of all that waits, and of what is being heard.
    size: AtomicUsize,
    /// Messages that wait.
    unheard: AtomicU64,
    /// The loop has left messages in their sockets and wants to know of room.
    wanted: AtomicBool,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Queue {
    mail: VecDeque<Mail>,
    stage: Stage,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// Nothing more will come.
    Closed,
    /// Nobody waits for it any more.
    Abandoned,
}

impl Dispatch {
    pub(crate) fn start(audience: Arc<Audience>, waker: Arc<Waker>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            audience,
            queue: Mutex::default(),
            more: Condvar::new(),
            size: AtomicUsize::new(0),
            unheard: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            waker,
        });
        let (ends, over) = channel();
        let theirs = Arc::clone(&shared);
        // The program's signals stay its own.
        let before = Mask::block_all();
        let started = std::thread::Builder::new().name("proteus-listeners".into()).spawn(move || {
            theirs.hear_all();
            drop(ends);
        });
        before.apply();
        started.map(|_| Dispatch { shared, over })
    }

    /// Whether there is room for another message; if not, the loop is woken once there is.
    pub(crate) fn has_room(&self) -> bool {
        if self.shared.size.load(SeqCst) < ROOM {
            return true;
        }
        self.shared.wanted.store(true, SeqCst);
        // It may have emptied before it could see that.
        self.shared.size.load(SeqCst) < AIR
    }

    /// Whether even last words find no room.
    pub(crate) fn is_overfull(&self) -> bool {
        self.shared.size.load(SeqCst) >= LAST_WORDS
    }

    /// Counts a message in before it is pushed.
    pub(crate) fn reserve(&self, mail: &Mail) {
        self.shared.size.fetch_add(OVERHEAD + mail.message.size(), SeqCst);
    }

    /// Hands over messages that were counted in.
    pub(crate) fn push(&self, mail: Vec<Mail>) {
        if mail.is_empty() {
            return;
        }
        self.shared.unheard.fetch_add(mail.len() as u64, SeqCst);
        let mut queue = self.shared.lock();
        let idle = queue.mail.is_empty();
        queue.mail.extend(mail);
        drop(queue);
        if idle {
            self.shared.more.notify_one();
        }
    }

    /// Lets the listeners hear what waits, for so long at most; how many messages they did not hear.
    pub(crate) fn finish(self, patience: Duration) -> u64 {
        self.shared.lock().stage = Stage::Closed;
        self.shared.more.notify_one();
        drop(self.over.recv_timeout(patience));
        self.shared.lock().stage = Stage::Abandoned;
        self.shared.audience.close();
        self.shared.unheard.load(SeqCst)
    }
}

impl Shared {
    fn hear_all(&self) {
        while let Some(mail) = self.next() {
            for mail in mail {
                if self.lock().stage == Stage::Abandoned {
                    return;
                }
                self.unheard.fetch_sub(1, SeqCst);
                self.audience.hear(&mail);
                self.release(OVERHEAD + mail.message.size());
            }
        }
    }

    /// All that waits; `None` once nothing more will come.
    fn next(&self) -> Option<VecDeque<Mail>> {
        let mut queue = self.lock();
        while queue.mail.is_empty() {
            match queue.stage {
                Stage::Open => {}
                Stage::Closed | Stage::Abandoned => return None,
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut queue.mail))
    }

    fn release(&self, size: usize) {
        let before = self.size.fetch_sub(size, SeqCst);
        if before - size < AIR
            && self.wanted.load(SeqCst)
            && self.wanted.swap(false, SeqCst)
            && let Err(error) = self.waker.wake()
        {
            journal::error!("waking the master: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
