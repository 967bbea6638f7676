//! The threads that start processes. A program may lie where no answer comes from: its exec then sleeps in the kernel,
//! and this thread with it, while the loop goes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use mio::Waker;

use super::spawn::Job;
use crate::supervisor::{Generation, SpawnFailure, WorkerId};
use crate::sys::attempt::Attempt;
use crate::sys::signal::Mask;
use crate::sys::spawn::{Spawner, Started};

/// Enough for a few calls with paths.
const STACK: usize = 256 << 10;
/// Threads that may sleep at a time.
const MOST: usize = 16;

/// One thread, usually; another for each one that sleeps.
pub(super) struct Starters {
    idle: Vec<Starter>,
    /// By the worker that they start, or started when nobody waits any more.
    busy: BTreeMap<WorkerId, Busy>,
    outcomes: Sender<Outcome>,
    finished: Receiver<Outcome>,
    waker: Arc<Waker>,
    with_pidfd: bool,
}

struct Busy {
    starter: Starter,
    generation: Generation,
}

/// What became of a worker's start.
type Outcome = (WorkerId, Result<Started, SpawnFailure>);

/// A thread for as long as this lives. Its children die with it, so it ends with the cluster and not before.
struct Starter {
    jobs: Sender<(Job, Arc<Attempt>)>,
    thread: JoinHandle<()>,
}

impl Starters {
    /// With the first thread.
    pub(super) fn new(waker: Arc<Waker>, with_pidfd: bool) -> io::Result<Self> {
        let (outcomes, finished) = channel();
        let (idle, busy) = (Vec::new(), BTreeMap::new());
        let mut starters = Starters { idle, busy, outcomes, finished, waker, with_pidfd };
        starters.idle.push(starters.another()?);
        Ok(starters)
    }

    /// Whether a worker of this generation is being started, or sleeps on its way.
    pub(super) fn is_busy_with(&self, generation: Generation) -> bool {
        self.busy.values().any(|busy| busy.generation == generation)
    }

    /// Starts a worker beside the loop.
    pub(super) fn start(&mut self, job: Job, attempt: Arc<Attempt>) -> io::Result<()> {
        let starter = match self.idle.pop() {
            Some(starter) => starter,
            None if self.busy.len() < MOST => self.another()?,
            None => return Err(io::Error::new(io::ErrorKind::ResourceBusy, "16 starts sleep already")),
        };
        let (worker, generation) = (job.worker(), job.generation());
        if starter.jobs.send((job, attempt)).is_err() {
            return Err(io::Error::other("the thread that starts workers is gone"));
        }
        self.busy.insert(worker, Busy { starter, generation });
        Ok(())
    }

    /// What has come back, one at a time.
    pub(super) fn take(&mut self) -> Option<Outcome> {
        let outcome = self.finished.try_recv().ok()?;
        if let Some(busy) = self.busy.remove(&outcome.0) {
            self.idle.push(busy.starter);
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
                let worker = job.worker();
                let outcome = job.run(&mut spawner, &attempt);
                if outcomes.send((worker, outcome)).is_ok() {
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
