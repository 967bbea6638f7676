//! What one worker makes the master hold beyond a turn of the loop, in bytes: one account for all of it.
//!
//! Whoever keeps something of a worker's, or for it, takes room here first. A kind that is spent leaves room for
//! the others, and a worker that has spent all leaves the other workers theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is held, and what comes of more than [`Kind::most`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines of the log that are not written yet. More are dropped and counted.
    Log,
    /// Replies for callers that still wait for those of other workers. More are dropped and counted, and the
    /// caller is told at once.
    Replies,
    /// Answers that the worker has not read, descriptors included. Until it reads, its channel is not read.
    Answers,
    /// Handles that wait until a Node worker has acknowledged the one before. More are refused with an errno.
    Handles,
    /// Names of requests that it answers. More are refused, counted and logged.
    Names,
    /// What it says that it does. A longer text is cut.
    Status,
    /// Why it says that it ends. A longer text is cut.
    Reason,
}

const KINDS: usize = 7;

impl Kind {
    /// Bytes, overhead included.
    pub(crate) const fn most(self) -> usize {
        match self {
            Kind::Log | Kind::Replies => 8 << 20,
            Kind::Answers | Kind::Handles => 256 << 10,
            Kind::Names => 64 << 10,
            Kind::Status => 4 << 10,
            Kind::Reason => 8 << 10,
        }
    }
}

/// One worker's account, for as long as anything of it is held.
#[derive(Debug, Default)]
pub(crate) struct Account {
    held: [AtomicUsize; KINDS],
    /// Lines and replies of it that were dropped or refused, ever.
    dropped: AtomicU64,
}

impl Account {
    fn of(&self, kind: Kind) -> &AtomicUsize {
        &self.held[kind as usize]
    }

    /// Takes room that somebody gives back by [`Account::release`]; nothing where there is not so much.
    pub(crate) fn admit(&self, kind: Kind, bytes: usize) -> bool {
        let before = self.of(kind).fetch_add(bytes, Relaxed);
        let fits = before.saturating_add(bytes) <= kind.most();
        if !fits {
            self.release(kind, bytes);
        }
        fits
    }

    pub(crate) fn release(&self, kind: Kind, bytes: usize) {
        self.of(kind).fetch_sub(bytes, Relaxed);
    }

    /// Takes room until the value that comes back is dropped; `None` where there is not so much.
    pub(crate) fn take(self: &Arc<Self>, kind: Kind, bytes: usize) -> Option<Held> {
        self.admit(kind, bytes).then(|| Held { account: Arc::clone(self), kind, bytes })
    }

    /// The same for what must be kept even so. Whoever does this asks [`Account::is_spent`] before the next.
    pub(crate) fn take_anyway(self: &Arc<Self>, kind: Kind, bytes: usize) -> Held {
        self.of(kind).fetch_add(bytes, Relaxed);
        Held { account: Arc::clone(self), kind, bytes }
    }

    pub(crate) fn is_spent(&self, kind: Kind) -> bool {
        self.of(kind).load(Relaxed) >= kind.most()
    }

    /// A text that takes the place of the one before it, cut to what may be kept.
    pub(crate) fn keep_text(&self, kind: Kind, mut text: String) -> String {
        cut(&mut text, kind.most());
        self.of(kind).store(text.len(), Relaxed);
        text
    }

    /// All that is held.
    pub(crate) fn held(&self) -> u64 {
        self.held.iter().map(|held| held.load(Relaxed) as u64).sum()
    }

    pub(crate) fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Room in an account, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<Account>,
    kind: Kind,
    bytes: usize,
}

impl Held {
    /// Two of one account and kind as one.
    pub(crate) fn joined(first: Option<Held>, second: Option<Held>) -> Option<Held> {
        match (first, second) {
            (Some(mut first), Some(mut second)) => {
                debug_assert!(Arc::ptr_eq(&first.account, &second.account) && first.kind == second.kind);
                first.bytes += std::mem::take(&mut second.bytes);
                Some(first)
            }
            (first, second) => first.or(second),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.release(self.kind, self.bytes);
    }
}

/// Cuts a text between letters, and marks it as cut, where it is longer than so many bytes.
pub(crate) fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let account = Arc::new(Account::default());
        let most = Kind::Replies.most();
        let half = account.take(Kind::Replies, most / 2).expect("room");
        assert!(account.take(Kind::Replies, most / 2 + 1).is_none(), "no room for it");
        let rest = account.take(Kind::Replies, most / 2).expect("what did not fit took nothing");
        assert!(account.is_spent(Kind::Replies) && !account.is_spent(Kind::Answers));
        assert!(account.admit(Kind::Log, Kind::Log.most()), "each kind has its own");
        account.release(Kind::Log, Kind::Log.most());
        assert_eq!(account.held(), most as u64);
        drop((half, rest));
        assert_eq!(account.held(), 0);
        assert!(account.take(Kind::Replies, usize::MAX).is_none());
        let more = account.take_anyway(Kind::Answers, 2 * Kind::Answers.most());
        assert!(account.is_spent(Kind::Answers));
        drop(more);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn a_text_is_cut_between_letters_and_counts_once() {
        let account = Account::default();
        let long = "é".repeat(Kind::Reason.most());
        let kept = account.keep_text(Kind::Reason, long);
        assert!(kept.ends_with("é…"), "{kept}");
        assert_eq!(kept.len(), Kind::Reason.most() + "…".len());
        assert_eq!(account.keep_text(Kind::Reason, "short".into()), "short");
        assert_eq!(account.held(), 5);
    }
}
