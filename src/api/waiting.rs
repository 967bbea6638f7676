//! Places of callers who wait for something to end: so many, and who has left keeps none.

use super::routes::Stay;
use crate::handle::Handle;
use crate::principal::CallId;

/// How many callers may wait at a time; one more is told so at once. Orders to stop have as many of their own.
pub(super) const PLACES: usize = 8;

/// One of the places. The loop knows of it, and forgets it when it is dropped.
pub(super) struct Place {
    call: CallId,
    stay: Stay,
    half_closed: bool,
    handle: Handle,
}

/// Who sits where.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seating {
    Free,
    /// In the place of the caller at this position, who says nothing more and may have gone.
    InsteadOf(usize),
    Full,
}

impl Place {
    pub(super) fn take(handle: &Handle, call: CallId, stay: Stay) -> Self {
        // A loop that has ended holds nothing for anybody.
        let _ = handle.begin_call(call);
        Place { call, stay, half_closed: false, handle: handle.clone() }
    }

    pub(super) fn call(&self) -> CallId {
        self.call
    }

    pub(super) fn note_half_close(&mut self) {
        self.half_closed = true;
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.handle.end_call(self.call);
    }
}

/// Where one more caller of this kind sits. A program that closes its sending half and waits on is rare, and
/// cannot be told from one that has gone: it keeps its place until somebody else wants it.
pub(super) fn seat<'a>(stay: Stay, places: impl Iterator<Item = (usize, &'a Place)>) -> Seating {
    let rows = places.map(|(at, place)| (at, place.stay, place.half_closed));
    seating(stay, &rows.collect::<Vec<_>>())
}

fn seating(stay: Stay, taken: &[(usize, Stay, bool)]) -> Seating {
    let alike = || taken.iter().filter(|(_, of, _)| *of == stay);
    if stay == Stay::Brief || alike().count() < PLACES {
        return Seating::Free;
    }
    match alike().find(|(_, _, half_closed)| *half_closed) {
        Some((at, _, _)) => Seating::InsteadOf(*at),
        None => Seating::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_wait_and_eight_more_to_stop_and_who_may_have_gone_gives_way() {
        let full = |stay| (0..PLACES).map(|at| (at, stay, false)).collect::<Vec<_>>();
        let one_silent = |stay| full(stay).into_iter().map(|(at, stay, _)| (at, stay, at == 3)).collect();
        let table = [
            (Stay::Waits, full(Stay::Waits)[1..].to_vec(), Seating::Free),
            (Stay::Waits, full(Stay::Waits), Seating::Full),
            (Stay::Waits, one_silent(Stay::Waits), Seating::InsteadOf(3)),
            (Stay::Waits, full(Stay::WaitsToStop), Seating::Free),
            (Stay::WaitsToStop, full(Stay::Waits), Seating::Free),
            (Stay::WaitsToStop, full(Stay::WaitsToStop), Seating::Full),
            (Stay::WaitsToStop, one_silent(Stay::WaitsToStop), Seating::InsteadOf(3)),
            (Stay::Brief, [full(Stay::Waits), full(Stay::WaitsToStop)].concat(), Seating::Free),
        ];
        for (stay, taken, expected) in table {
            assert_eq!(seating(stay, &taken), expected, "{stay:?} {taken:?}");
        }
    }
}
