//! What a readiness event is about. A token holds a worker id, which is never reused, so that an
//! event that outlives its worker finds nobody.

use mio::Token;

use crate::journal::Stream;
use crate::supervisor::WorkerId;

/// A source of events in the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A signal has come.
    Signals,
    /// Another thread has put a command into the channel.
    Commands,
    /// The guard has hung up.
    Guard,
    /// Something happened to the file of a socket.
    Files,
    /// A listener has been shut down.
    Listeners,
    /// The worker's process has ended.
    Exit(WorkerId),
    /// The worker's channel can be read or written.
    Channel(WorkerId),
    /// The worker's `NOTIFY_SOCKET` has a message.
    Notify(WorkerId),
    /// The worker has written to its captured stdout or stderr.
    Output(WorkerId, Stream),
}

/// Sources of a worker; ids count from 1, so the first tokens are free for the others.
const KINDS: usize = 5;

impl Source {
    pub(super) fn token(self) -> Token {
        let of =
            |worker: WorkerId, kind| usize::try_from(worker.0).unwrap_or(usize::MAX / KINDS) * KINDS + kind;
        Token(match self {
            Source::Signals => 0,
            Source::Commands => 1,
            Source::Guard => 2,
            Source::Files => 3,
            Source::Listeners => 4,
            Source::Exit(worker) => of(worker, 0),
            Source::Channel(worker) => of(worker, 1),
            Source::Notify(worker) => of(worker, 2),
            Source::Output(worker, Stream::Stdout) => of(worker, 3),
            Source::Output(worker, Stream::Stderr) => of(worker, 4),
        })
    }

    /// Whether this is one of the worker's sources.
    pub(super) fn is_of(self, worker: WorkerId) -> bool {
        match self {
            Source::Signals | Source::Commands | Source::Guard | Source::Files | Source::Listeners => false,
            Source::Exit(of) | Source::Channel(of) | Source::Notify(of) | Source::Output(of, _) => {
                of == worker
            }
        }
    }

    pub(super) fn from_token(Token(number): Token) -> Option<Self> {
        let worker = WorkerId((number / KINDS) as u64);
        match (number / KINDS, number % KINDS) {
            (0, 0) => Some(Source::Signals),
            (0, 1) => Some(Source::Commands),
            (0, 2) => Some(Source::Guard),
            (0, 3) => Some(Source::Files),
            (0, 4) => Some(Source::Listeners),
            (0, _) => None,
            (_, 0) => Some(Source::Exit(worker)),
            (_, 1) => Some(Source::Channel(worker)),
            (_, 2) => Some(Source::Notify(worker)),
            (_, 3) => Some(Source::Output(worker, Stream::Stdout)),
            (_, 4) => Some(Source::Output(worker, Stream::Stderr)),
            (_, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_source_and_no_other() {
        let sources = [Source::Signals, Source::Commands, Source::Guard, Source::Files, Source::Listeners]
            .into_iter()
            .chain((1..5).flat_map(|id| {
                let worker = WorkerId(id);
                let output = [Stream::Stdout, Stream::Stderr].map(|stream| Source::Output(worker, stream));
                [Source::Exit(worker), Source::Channel(worker), Source::Notify(worker)]
                    .into_iter()
                    .chain(output)
            }));
        let mut seen = Vec::new();
        for source in sources {
            assert_eq!(Source::from_token(source.token()), Some(source));
            assert!(!seen.contains(&source.token()), "{source:?} shares its token");
            seen.push(source.token());
        }
    }
}
