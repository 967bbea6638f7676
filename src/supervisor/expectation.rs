//! Whether workers are expected to say that they are ready.

use std::collections::BTreeSet;

use super::ids::Generation;

/// Who is expected to say ready: the workers of a generation of which one has, and those of a release on trial when one
/// of the generation that serves has.
///
/// What a release on trial says is therefore expected of itself alone, until it serves; and once it serves, what it has
/// shown itself counts, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadyExpectation {
    serving: Generation,
    said: BTreeSet<Generation>,
}

impl ReadyExpectation {
    pub(super) fn new(serving: Generation) -> Self {
        ReadyExpectation { serving, said: BTreeSet::new() }
    }

    pub(super) fn holds_for(&self, generation: Generation) -> bool {
        let inherits = generation > self.serving && self.said.contains(&self.serving);
        inherits || self.said.contains(&generation)
    }

    /// A worker of this generation has said ready.
    pub(super) fn learn(&mut self, generation: Generation, is_alive: impl Fn(Generation) -> bool) {
        if self.said.insert(generation) {
            let serving = self.serving;
            self.said.retain(|said| *said == serving || is_alive(*said));
        }
    }

    /// All workers of this generation have become ready, by a word or without, and it serves now.
    pub(super) fn take_over(&mut self, generation: Generation) {
        self.serving = generation;
    }
}
