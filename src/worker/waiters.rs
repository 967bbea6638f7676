//! Threads that block in accept, and how they are got out of it.
//!
//! A blocking `accept` gives the fairest and cheapest sharing there is, but only a signal ends it. So each
//! thread says who it is before it accepts, in a seat of its own, and takes that back afterwards. Once the door
//! closes, a chaser thread sends the signal to whoever sits, and again every millisecond, since a signal that
//! lands just before the call is lost. The seat's lock keeps a signal from reaching a thread that has left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Duration;

use super::{lock, spawn_quiet};
use crate::sys::interrupt::{Interrupt, Tid};

const CHASE_EVERY: Duration = Duration::from_millis(1);

/// All seats of a worker, and whether its door is closing.
#[derive(Default)]
pub(super) struct Waiters {
    closing: AtomicBool,
    /// Threads that are between two connections, however they wait.
    idle: AtomicUsize,
    /// Whether a connection was accepted since the last heartbeat of ours.
    accepted: AtomicBool,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    all: Vec<Arc<Seat>>,
    chaser: Option<Thread>,
}

/// Who blocks here, if anybody.
#[derive(Default)]
struct Seat(Mutex<Option<Tid>>);

/// One iterator's seat, kept for its life.
pub(super) struct Booking {
    waiters: Arc<Waiters>,
    seat: Arc<Seat>,
}

/// While this lives its thread is interrupted once the door closes.
pub(super) struct Seated<'a>(&'a Booking);

/// A thread that waits for its next connection.
pub(super) struct Idle(Arc<Waiters>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, SeqCst);
    }
}

impl Waiters {
    /// Counts the calling thread as one that waits for a connection, for as long as the result lives.
    pub(super) fn idle(self: &Arc<Self>) -> Idle {
        self.idle.fetch_add(1, SeqCst);
        Idle(Arc::clone(self))
    }

    pub(super) fn note_accepted(&self) {
        self.accepted.store(true, SeqCst);
    }

    /// Whether a thread waits for a connection now, or has been given one since the last time this was asked.
    pub(super) fn has_served(&self) -> bool {
        let accepted = self.accepted.swap(false, SeqCst);
        accepted || self.idle.load(SeqCst) > 0
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// Interrupts all who sit, now and later.
    pub(super) fn close(self: &Arc<Self>) {
        self.closing.store(true, SeqCst);
        self.start_chaser(&mut lock(&self.seats));
    }

    pub(super) fn book(self: &Arc<Self>) -> Booking {
        let seat = Arc::new(Seat::default());
        let mut seats = lock(&self.seats);
        seats.all.push(Arc::clone(&seat));
        if self.is_closing() {
            self.start_chaser(&mut seats);
        }
        Booking { waiters: Arc::clone(self), seat }
    }

    fn start_chaser(self: &Arc<Self>, seats: &mut Seats) {
        if seats.all.is_empty() || seats.chaser.is_some() {
            return;
        }
        let waiters = Arc::clone(self);
        let started = Interrupt::claim()
            .and_then(|signal| spawn_quiet("proteus-chaser", move || waiters.chase(signal)));
        match started {
            Ok(thread) => seats.chaser = Some(thread),
            Err(error) => log::error!("cannot interrupt accept, an idle worker must be killed: {error}"),
        }
    }

    /// The chaser's life: it ends with the last seat.
    fn chase(&self, signal: Interrupt) {
        loop {
            let mut seats = lock(&self.seats);
            if seats.all.is_empty() {
                seats.chaser = None;
                return;
            }
            let sitting = seats.all.iter().filter(|seat| seat.interrupt(signal)).count();
            drop(seats);
            if sitting == 0 { thread::park() } else { thread::park_timeout(CHASE_EVERY) }
        }
    }

    fn wake_chaser(&self) {
        if let Some(chaser) = &lock(&self.seats).chaser {
            chaser.unpark();
        }
    }
}

impl Seat {
    fn interrupt(&self, signal: Interrupt) -> bool {
        let waiter = lock(&self.0);
        waiter.inspect(|thread| signal.send(*thread)).is_some()
    }
}

impl Booking {
    /// Sits down. Whoever looks at [`Waiters::is_closing`] after this either sees it or is interrupted.
    pub(super) fn sit(&self) -> Seated<'_> {
        *lock(&self.seat.0) = Some(Tid::current());
        if self.waiters.is_closing() {
            self.waiters.wake_chaser();
        }
        Seated(self)
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        *lock(&self.0.seat.0) = None;
        if self.0.waiters.is_closing() {
            Interrupt::settle();
        }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        lock(&self.waiters.seats).all.retain(|seat| !Arc::ptr_eq(seat, &self.seat));
        self.waiters.wake_chaser();
    }
}
