//! Work that is done beside the loop for workers: who waits for which piece of it and until when, and what may
//! run at a time. A piece that never comes back costs the worker that asked for it its turn, and nobody else.

use super::ids::{Moment, WorkerId};

/// Pieces of work that run at a time, for one worker and for all.
const RUNNING_FOR_ONE: usize = 1;
const RUNNING: usize = 8;
/// What one worker may wait for at a time.
const WAITING_FOR_ONE: usize = 16;

/// The work that has not come back. `K` names a piece of it, `W` is what is kept for the answer.
#[derive(Debug)]
pub(crate) struct Jobs<K, W> {
    /// In the order in which they were asked for.
    open: Vec<Job<K, W>>,
}

#[derive(Debug)]
struct Job<K, W> {
    key: K,
    stage: Stage,
    waiting: Vec<Waiting<W>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Queued,
    /// It takes up the turn of this worker, though it may be gone, and nobody waits any more.
    Running(WorkerId),
}

#[derive(Debug)]
struct Waiting<W> {
    worker: WorkerId,
    due: Moment,
    what: W,
}

impl<K: Clone + PartialEq, W> Jobs<K, W> {
    pub(crate) fn new() -> Self {
        Jobs { open: Vec::new() }
    }

    /// One more waits for this piece of work, whoever asked for it first. A worker that waits for too much already
    /// gets back what it came with.
    pub(crate) fn ask(&mut self, key: &K, worker: WorkerId, due: Moment, what: W) -> Result<(), W> {
        let waits = self.open.iter().flat_map(|job| &job.waiting).filter(|waiting| waiting.worker == worker);
        if waits.count() >= WAITING_FOR_ONE {
            return Err(what);
        }
        let waiting = Waiting { worker, due, what };
        match self.open.iter_mut().find(|job| job.key == *key) {
            Some(job) => job.waiting.push(waiting),
            None => {
                self.open.push(Job { key: key.clone(), stage: Stage::Queued, waiting: vec![waiting] });
            }
        }
        Ok(())
    }

    /// The next piece that may run, which from now on does; and what its first asker came with.
    pub(crate) fn start(&mut self) -> Option<(K, &W)> {
        let running: Vec<WorkerId> = self.open.iter().filter_map(Job::runs_for).collect();
        if running.len() >= RUNNING {
            return None;
        }
        let has_turn = |worker| running.iter().filter(|other| **other == worker).count() < RUNNING_FOR_ONE;
        let mut queued = self.open.iter_mut().filter(|job| job.stage == Stage::Queued);
        queued.find_map(|job| {
            let worker = job.waiting.iter().map(|waiting| waiting.worker).find(|worker| has_turn(*worker))?;
            job.stage = Stage::Running(worker);
            Some((job.key.clone(), &job.waiting.first()?.what))
        })
    }

    /// A piece has come back: those who wait for it.
    pub(crate) fn finish(&mut self, key: &K) -> Vec<(WorkerId, W)> {
        let Some(at) = self.open.iter().position(|job| job.key == *key) else { return Vec::new() };
        let job = self.open.remove(at);
        job.waiting.into_iter().map(|waiting| (waiting.worker, waiting.what)).collect()
    }

    /// Takes out those whose time is over. What runs goes on, and may still serve somebody who asks later.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<(K, WorkerId, W)> {
        self.take_out(|waiting| waiting.due <= now)
    }

    /// The worker is gone, and waits for nothing.
    pub(crate) fn lose(&mut self, worker: WorkerId) {
        self.take_out(|waiting| waiting.worker == worker);
    }

    /// How many pieces have not come back.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.open.iter().flat_map(|job| &job.waiting).map(|waiting| waiting.due).min()
    }

    fn take_out(&mut self, is_over: impl Fn(&Waiting<W>) -> bool) -> Vec<(K, WorkerId, W)> {
        let mut over = Vec::new();
        for job in &mut self.open {
            for waiting in job.waiting.extract_if(.., |waiting| is_over(waiting)) {
                over.push((job.key.clone(), waiting.worker, waiting.what));
            }
        }
        self.open.retain(|job| job.stage != Stage::Queued || !job.waiting.is_empty());
        over
    }
}

impl<K, W> Job<K, W> {
    fn runs_for(&self) -> Option<WorkerId> {
        match self.stage {
            Stage::Queued => None,
            Stage::Running(worker) => Some(worker),
        }
    }
}
