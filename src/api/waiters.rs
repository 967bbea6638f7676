//! Callers who wait for something to end: each on a thread of its own, and only so many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tiny_http::Request;

use super::backend::send;
use super::routes::Page;
use crate::journal;

/// How many callers may wait at a time; one more is told so at once.
const WAITERS: usize = 8;

/// An answer that takes its time.
pub(crate) type Later = Box<dyn FnOnce() -> Page + Send>;

/// Counts who waits.
#[derive(Clone, Default)]
pub(super) struct Waiters {
    count: Arc<AtomicUsize>,
}

/// One of the places; given back when dropped.
pub(super) struct Place {
    count: Arc<AtomicUsize>,
}

impl Waiters {
    /// A place, while there is one.
    pub(super) fn enter(&self) -> Option<Place> {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        // Dropped again where it is one too many.
        let place = Place { count: Arc::clone(&self.count) };
        (before < WAITERS).then_some(place)
    }
}

impl Place {
    /// Answers `request` on a thread of its own.
    pub(super) fn answer(self, request: Request, later: Later) {
        let thread = thread::Builder::new().name("proteus-api-wait".into());
        let spawned = thread.spawn(move || {
            let page = later();
            // Before the answer is out, so that who has it finds room.
            drop(self);
            send(request, page);
        });
        if let Err(error) = spawned {
            journal::warn!("control API: no thread for a caller who waits: {error}; he is told of a failure");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_places_and_no_more() {
        let waiters = Waiters::default();
        let mut places: Vec<_> = (0..WAITERS).map(|_| waiters.enter().unwrap()).collect();
        assert!(waiters.enter().is_none());
        assert!(waiters.clone().enter().is_none());
        places.pop();
        assert!(waiters.enter().is_some());
    }
}
