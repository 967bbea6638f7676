//! What starts processes: the loop itself where it waits for nothing but a disk, else a thread. A program may lie where
//! no answer comes from: its exec then sleeps in the kernel, and that thread with it, while the loop goes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use mio::Waker;

use super::mounts::Mounts;
use super::spawn::Job;
use crate::supervisor::{Generation, SpawnFailure, WorkerId};
use crate::sys::attempt::Attempt;
use crate::sys::signal::Mask;
use crate::sys::spawn::{Spawner, Started};

/// Enough for a few calls with paths.
const STACK: usize = 256 << 10;
/// Threads that may sleep at a time.
const MOST: usize = 16;

/// No thread, usually; where programs lie elsewhere, one for each generation that starts workers or sleeps meanwhile.
pub(super) struct Starters {
    /// The loop's own.
    spawner: Spawner,
    /// `None` where the kernel does not tell of them.
    mounts: Option<Mounts>,
    idle: Vec<Starter>,
    /// By the generation whose workers they start, or started when nobody waits any more.
    busy: BTreeMap<Generation, Busy>,
    outcomes: Sender<Outcome>,
    finished: Receiver<Outcome>,
    waker: Arc<Waker>,
    with_pidfd: bool,
}

struct Busy {
    starter: Starter,
    /// What has not come back.
    jobs: usize,
}

/// What became of a worker's start.
pub(super) struct Outcome {
    pub(super) worker: WorkerId,
    generation: Generation,
    pub(super) started: Result<Started, SpawnFailure>,
}

/// A thread for as long as this lives. Its children die with it, so it ends with the cluster and not before.
struct Starter {
    jobs: Sender<(Job, Arc<Attempt>)>,
    thread: JoinHandle<()>,
}

impl Starters {
    /// For the thread that calls this.
    pub(super) fn new(waker: Arc<Waker>, with_pidfd: bool) -> io::Result<Self> {
        let (outcomes, finished) = channel();
        let (spawner, mounts) = (Spawner::new(with_pidfd)?, Mounts::open().ok());
        let (idle, busy) = (Vec::new(), BTreeMap::new());
        Ok(Starters { spawner, mounts, idle, busy, outcomes, finished, waker, with_pidfd })
    }

    /// Whether workers of this generation are being started, or sleep on their way.
    pub(super) fn are_busy_with(&self, generation: Generation) -> bool {
        self.busy.contains_key(&generation)
    }

    /// Starts a worker, after those of its generation that were given before. Its outcome is to be taken: at once where
    /// nothing has to be waited for, else when the loop is woken.
    pub(super) fn start(&mut self, job: Job, attempt: Arc<Attempt>) -> io::Result<()> {
        let generation = job.generation();
        let mounts = self.mounts.as_mut().filter(|_| !self.busy.contains_key(&generation));
        if mounts.is_some_and(|mounts| mounts.are_local(job.pinned().paths())) {
            return self.start_here(job, &attempt);
        }
        let mut busy = match self.busy.remove(&generation) {
            Some(busy) => busy,
            None => Busy { starter: self.free()?, jobs: 0 },
        };
        if busy.starter.jobs.send((job, attempt)).is_err() {
            return Err(io::Error::other("the thread that starts workers is gone"));
        }
        busy.jobs += 1;
        self.busy.insert(generation, busy);
        Ok(())
    }

    fn start_here(&mut self, job: Job, attempt: &Attempt) -> io::Result<()> {
        let (worker, generation, location) = (job.worker(), job.generation(), job.pinned().locate_at_once());
        let started = job.run(&location, &mut self.spawner, attempt);
        self.outcomes.send(Outcome { worker, generation, started }).map_err(io::Error::other)
    }

    fn free(&mut self) -> io::Result<Starter> {
        match self.idle.pop() {
            Some(starter) => Ok(starter),
            None if self.busy.len() < MOST => self.another(),
            None => Err(io::Error::new(io::ErrorKind::ResourceBusy, "16 starts sleep already")),
        }
    }

    /// What has come back, one at a time.
    pub(super) fn take(&mut self) -> Option<Outcome> {
        let outcome = self.finished.try_recv().ok()?;
        if let Some(mut busy) = self.busy.remove(&outcome.generation) {
            busy.jobs -= 1;
            if busy.jobs == 0 {
                self.idle.push(busy.starter);
            } else {
                self.busy.insert(outcome.generation, busy);
            }
        }
        Some(outcome)
    }

    fn another(&self) -> io::Result<Starter> {
        let (to_it, jobs) = channel::<(Job, Arc<Attempt>)>();
        let (began, has_begun) = channel();
        let (outcomes, waker, with_pidfd) = (self.outcomes.clone(), Arc::clone(&self.waker), self.with_pidfd);
        // The program's signals stay its own.
        let before = Mask::block_all();
        let started = Builder::new().name("proteus-spawn".into()).stack_size(STACK).spawn(move || {
            let mut spawner = match Spawner::new(with_pidfd) {
                Ok(spawner) => spawner,
                Err(error) => return drop(began.send(Err(error))),
            };
            drop(began.send(Ok(())));
            for (job, attempt) in jobs {
                let (worker, generation, location) = (job.worker(), job.generation(), job.pinned().locate());
                let started = job.run(&location, &mut spawner, &attempt);
                if outcomes.send(Outcome { worker, generation, started }).is_ok() {
                    // Without it the outcome waits for the loop's next turn.
                    let _ = waker.wake();
                }
            }
        });
        before.apply();
        let thread = started?;
        has_begun.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Starter { jobs: to_it, thread })
    }
}

impl Drop for Starters {
    /// Threads that sleep are left to themselves.
    fn drop(&mut self) {
        for Starter { jobs, thread } in self.idle.drain(..) {
            drop(jobs);
            drop(thread.join()); // a panic in it has been told on stderr
        }
    }
}
