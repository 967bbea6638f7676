//! Who can be written to, from any thread: the way from a [`Handle`](crate::Handle) to the workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Kind, Result};
use crate::master::outbox::{Full, Outbox};
use crate::message::Outgoing;

/// What may be sent before the cluster runs; it waits for the first workers.
const EARLY: usize = 8 << 20;

/// A worker, as listeners and callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    id: u64,
    slot: usize,
    pid: u32,
    generation: u64,
}

impl WorkerInfo {
    pub(crate) fn new(id: u64, slot: usize, pid: u32, generation: u64) -> Self {
        WorkerInfo { id, slot, pid, generation }
    }

    /// Its number: from 1, never used again in the life of its master.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The seat that it fills, from 0.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The generation of its program, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Every live worker that was not yet told to disconnect. The loop keeps it; any thread may send.
#[derive(Debug)]
pub(crate) struct Peers {
    stage: Mutex<Stage>,
    /// Messages to workers, and from them, that were thrown away.
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Stage {
    /// Not all of the first workers are there yet: lines to all are for those that come as well.
    Early {
        lines: Vec<u8>,
        workers: BTreeMap<u64, Arc<Outbox>>,
    },
    Running(BTreeMap<u64, Arc<Outbox>>),
    Ended,
}

impl Peers {
    pub(crate) fn new() -> Self {
        let stage = Stage::Early { lines: Vec::new(), workers: BTreeMap::new() };
        Peers { stage: Mutex::new(stage), dropped: AtomicU64::new(0) }
    }

    pub(crate) fn join(&self, outbox: Arc<Outbox>) {
        let mut stage = self.lock();
        let workers = match &mut *stage {
            Stage::Early { lines, workers } => {
                for line in lines.split_inclusive(|&byte| byte == b'\n') {
                    // It is counted; whoever sent it has long been answered.
                    let _ = self.post(&outbox, line);
                }
                workers
            }
            Stage::Running(workers) => workers,
            Stage::Ended => return,
        };
        workers.insert(outbox.worker().id(), outbox);
    }

    /// It is gone, or told to go: no more messages for it.
    pub(crate) fn leave(&self, worker: u64) {
        match &mut *self.lock() {
            Stage::Early { workers, .. } | Stage::Running(workers) => drop(workers.remove(&worker)),
            Stage::Ended => {}
        }
    }

    /// The first workers are there, and have what was sent before.
    pub(crate) fn open(&self) {
        let mut stage = self.lock();
        if let Stage::Early { workers, .. } = &mut *stage {
            *stage = Stage::Running(std::mem::take(workers));
        }
    }

    pub(crate) fn end(&self) {
        *self.lock() = Stage::Ended;
    }

    /// The ways to all of them, by worker id.
    pub(crate) fn all(&self) -> Vec<Arc<Outbox>> {
        match &*self.lock() {
            Stage::Early { workers, .. } | Stage::Running(workers) => workers.values().cloned().collect(),
            Stage::Ended => Vec::new(),
        }
    }

    /// To every live worker that was not told to disconnect; how many those are.
    pub(crate) fn send_to_all(&self, message: &Outgoing) -> Result<usize> {
        let workers = match &mut *self.lock() {
            Stage::Early { lines, .. } if lines.len() + message.line.len() > EARLY => {
                return Err(Error::new(Kind::Full, "too much is sent before the cluster runs"));
            }
            Stage::Early { lines, workers } => {
                lines.extend_from_slice(&message.line);
                workers.values().cloned().collect::<Vec<_>>()
            }
            Stage::Running(workers) => workers.values().cloned().collect(),
            Stage::Ended => return Err(Error::ended()),
        };
        let full: Vec<String> = workers
            .iter()
            .filter(|outbox| self.post(outbox, &message.line).is_err())
            .map(|outbox| outbox.worker().id().to_string())
            .collect();
        if full.is_empty() { Ok(workers.len()) } else { Err(queue_full(&full.join(", "))) }
    }

    /// To one worker.
    pub(crate) fn send_to(&self, worker: u64, message: &Outgoing) -> Result<()> {
        let outbox = match &*self.lock() {
            Stage::Early { workers, .. } | Stage::Running(workers) => workers.get(&worker).cloned(),
            Stage::Ended => return Err(Error::ended()),
        };
        let gone =
            || Error::new(Kind::Gone, format!("worker {worker} is not there, or was told to disconnect"));
        self.post(&*outbox.ok_or_else(gone)?, &message.line).map_err(|Full| queue_full(&worker.to_string()))
    }

    /// A user's line to one worker, whatever brought it about.
    pub(crate) fn post(&self, outbox: &Outbox, line: &[u8]) -> Result<(), Full> {
        outbox.post(line).inspect_err(|Full| self.count_dropped(1))
    }

    pub(crate) fn count_dropped(&self, messages: u64) {
        self.dropped.fetch_add(messages, Relaxed);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn queue_full(workers: &str) -> Error {
    Error::new(Kind::Full, format!("worker {workers}: the queue is full, the message was dropped"))
}
