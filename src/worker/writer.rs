//! Lines out, from any thread. A single line leaves at once, written by its sender; lines in a burst share
//! writes: they gather while a thread of ours writes those before them.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{lock, spawn_quiet};
use crate::error::{Cause, Error, Kind, Result};
use crate::message::FromWorker;
use crate::sys::ancillary;

/// What may gather; a sender who finds so much waits, so that the channel being full is felt by those who send.
const BATCH: usize = 256 << 10;
/// What may gather with lines of the log, which never wait: past it they are dropped.
#[cfg(feature = "logger")]
const LOG_BATCH: usize = 4 << 20;
/// A line that follows a write so closely is part of a burst. It takes less than an answer could, so that a
/// conversation is never mistaken for one.
const BURST: Duration = Duration::from_micros(3);

pub(super) struct Writer {
    socket: Arc<UnixStream>,
    out: Mutex<Out>,
    /// The flusher has work, or none will ever come.
    work: Condvar,
    /// There is room, or all has gone.
    moved: Condvar,
}

struct Out {
    /// Whole lines that wait to be written, in order.
    batch: Vec<u8>,
    pen: Pen,
    flusher: Flusher,
    /// Lines of the log that found no room since the master was last told of such.
    lost: u64,
    /// When the last write ended.
    wrote: Option<Instant>,
    /// Threads that wait for `moved`.
    waiting: usize,
}

/// Who may write: one thread at a time, so that lines never mix.
enum Pen {
    Free,
    Taken,
    /// The master is gone; why, where there is more to say.
    Broken(Option<io::Error>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flusher {
    /// Most workers never send a burst, and have no such thread.
    Unborn,
    Asleep,
    Awake,
}

impl Writer {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        let out = Out {
            batch: Vec::new(),
            pen: Pen::Free,
            flusher: Flusher::Unborn,
            lost: 0,
            wrote: None,
            waiting: 0,
        };
        Writer { socket, out: Mutex::new(out), work: Condvar::new(), moved: Condvar::new() }
    }

    /// Takes whole lines, and waits while the channel is full. What it took goes before the process exits.
    pub(super) fn send(self: &Arc<Self>, lines: &[u8]) -> Result<()> {
        let mut out = self.wait_for_room()?;
        if matches!(out.pen, Pen::Free) && out.batch.is_empty() && !out.is_in_burst() {
            out.pen = Pen::Taken;
            drop(out);
            return self.write(lines);
        }
        out.batch.extend_from_slice(lines);
        self.call_flusher(out);
        Ok(())
    }

    /// Takes a line of the log and never waits: what there is no room for is dropped, and the master is told how
    /// many such there were as soon as it reads on.
    #[cfg(feature = "logger")]
    pub(super) fn offer(self: &Arc<Self>, line: &[u8]) {
        let mut out = lock(&self.out);
        match out.pen {
            Pen::Broken(_) => {}
            Pen::Free | Pen::Taken if out.batch.len() + line.len() > LOG_BATCH => out.lost += 1,
            Pen::Free | Pen::Taken => {
                out.tell_lost();
                out.batch.extend_from_slice(line);
                self.call_flusher(out);
            }
        }
    }

    /// Waits until everything that was taken has gone, and writes it if nobody else does: at the process's exit.
    pub(super) fn flush(&self) {
        let mut out = lock(&self.out);
        loop {
            match out.pen {
                Pen::Broken(_) => return,
                Pen::Free if out.batch.is_empty() => return,
                Pen::Free => {
                    let batch = out.take();
                    drop(out);
                    // A failure is in the pen now.
                    let _ = self.write(&batch);
                    out = lock(&self.out);
                }
                Pen::Taken => out = self.wait(out),
            }
        }
    }

    /// The master is gone: whoever waits is told so.
    pub(super) fn end(&self) {
        let mut out = lock(&self.out);
        if !matches!(out.pen, Pen::Broken(_)) {
            out.pen = Pen::Broken(None);
        }
        self.work.notify_one();
        self.moved.notify_all();
    }

    fn wait_for_room(&self) -> Result<MutexGuard<'_, Out>> {
        let mut out = lock(&self.out);
        loop {
            match &out.pen {
                Pen::Broken(cause) => return Err(gone(cause.as_ref())),
                Pen::Free | Pen::Taken if out.batch.len() < BATCH => return Ok(out),
                Pen::Free | Pen::Taken => out = self.wait(out),
            }
        }
    }

    fn wait<'a>(&self, mut out: MutexGuard<'a, Out>) -> MutexGuard<'a, Out> {
        out.waiting += 1;
        out = self.moved.wait(out).unwrap_or_else(PoisonError::into_inner);
        out.waiting -= 1;
        out
    }

    /// Writes as the holder of the pen, and gives it back.
    fn write(&self, lines: &[u8]) -> Result<()> {
        let wrote = write_all(&self.socket, lines);
        let mut out = lock(&self.out);
        out.wrote = Some(Instant::now());
        let outcome = wrote.as_ref().copied().map_err(|error| gone(Some(error)));
        // The reader may have found the end meanwhile.
        if matches!(out.pen, Pen::Taken) {
            out.pen = wrote.map_or_else(|error| Pen::Broken(Some(error)), |()| Pen::Free);
        }
        if out.waiting > 0 {
            self.moved.notify_all();
        }
        if !out.batch.is_empty() && out.flusher == Flusher::Asleep {
            out.flusher = Flusher::Awake;
            self.work.notify_one();
        }
        outcome
    }

    /// Sees to it that the batch is written soon.
    fn call_flusher(self: &Arc<Self>, mut out: MutexGuard<'_, Out>) {
        match out.flusher {
            Flusher::Awake => {}
            Flusher::Asleep => {
                out.flusher = Flusher::Awake;
                self.work.notify_one();
            }
            Flusher::Unborn => {
                out.flusher = Flusher::Awake;
                drop(out);
                let theirs = Arc::clone(self);
                if let Err(error) = spawn_quiet("proteus-flush", move || theirs.flush_all()) {
                    log::debug!("no thread for bursts of messages: {error}");
                    lock(&self.out).flusher = Flusher::Unborn;
                    self.flush();
                }
            }
        }
    }

    fn flush_all(&self) {
        let mut batch = Vec::new();
        while self.take_batch(&mut batch) {
            // A failure is in the pen now, and ends this.
            let _ = self.write(&batch);
            batch.clear();
        }
    }

    /// Waits for something to write and for the pen; not if the master is gone.
    fn take_batch(&self, batch: &mut Vec<u8>) -> bool {
        let mut out = lock(&self.out);
        loop {
            match out.pen {
                Pen::Broken(_) => return false,
                Pen::Free if !out.batch.is_empty() => {
                    out.tell_lost();
                    std::mem::swap(&mut out.batch, batch);
                    out.pen = Pen::Taken;
                    if out.waiting > 0 {
                        self.moved.notify_all();
                    }
                    return true;
                }
                Pen::Free | Pen::Taken => {}
            }
            out.flusher = Flusher::Asleep;
            out = self.work.wait(out).unwrap_or_else(PoisonError::into_inner);
            out.flusher = Flusher::Awake;
        }
    }
}

impl Out {
    fn is_in_burst(&self) -> bool {
        self.wrote.is_some_and(|at| at.elapsed() < BURST)
    }

    /// Their place is behind the lines that left no room for them.
    fn tell_lost(&mut self) {
        let count = std::mem::take(&mut self.lost);
        if count > 0 {
            self.batch.extend(FromWorker::LogDropped { count }.encode());
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.tell_lost();
        self.pen = Pen::Taken;
        std::mem::take(&mut self.batch)
    }
}

fn write_all(socket: &UnixStream, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        let sent = ancillary::send(socket.as_fd(), lines, None)?;
        lines = &lines[sent..];
    }
    Ok(())
}

/// Any failure of the channel is its end: half a line may have gone.
pub(super) fn gone(cause: Option<&io::Error>) -> Error {
    match cause {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Error::new(Kind::Ended, format!("the master is gone: {}", Cause(error)))
        }
        _ => Error::new(Kind::Ended, "the master is gone"),
    }
}
