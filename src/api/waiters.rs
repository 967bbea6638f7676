//! Callers who wait for something to end: each on a thread of its own, and only so many.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use tiny_http::Request;

use super::routes::Page;
use super::{Over, send};
use crate::journal;

/// How many callers may wait at a time; one more is told so at once.
const WAITERS: usize = 8;

/// Counts who waits: every waiting thread holds a copy of the token, and so the end of the API waits for them.
pub(super) struct Waiters {
    token: Arc<Sender<Over>>,
}

/// An answer that takes its time.
pub(crate) type Later = Box<dyn FnOnce() -> Page + Send>;

impl Waiters {
    pub(super) fn new(ends: Sender<Over>) -> Self {
        Waiters { token: Arc::new(ends) }
    }

    pub(super) fn has_room(&self) -> bool {
        Arc::strong_count(&self.token) <= WAITERS
    }

    /// Answers `request` on a thread of its own.
    pub(super) fn answer(&self, request: Request, later: Later) {
        let token = Arc::clone(&self.token);
        let thread = thread::Builder::new().name("proteus-api-wait".into());
        let spawned = thread.spawn(move || {
            send(request, later());
            drop(token);
        });
        if let Err(error) = spawned {
            journal::warn!("control API: no thread for a caller who waits: {error}; he is not answered");
        }
    }
}
