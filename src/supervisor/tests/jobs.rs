//! Work beside the loop: shared by those who ask for the same, bounded, and given up in time.

use std::time::Duration;

use crate::supervisor::{Jobs, Moment, WorkerId};

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn start<K: Clone + PartialEq, W>(jobs: &mut Jobs<K, W>) -> Option<K> {
    jobs.start().map(|(key, _)| key)
}

#[test]
fn those_who_ask_for_the_same_share_it() {
    let mut jobs = Jobs::new();
    jobs.ask(&"x", A, at(2), "a").unwrap();
    jobs.ask(&"x", B, at(3), "b").unwrap();
    assert_eq!(jobs.start(), Some(("x", &"a")), "as the first wants it");
    assert_eq!(jobs.start(), None);
    assert_eq!(jobs.next_deadline(), Some(at(2)));
    assert_eq!(jobs.finish(&"x"), [(A, "a"), (B, "b")]);
    assert_eq!((jobs.len(), jobs.next_deadline()), (0, None));
    assert_eq!(jobs.finish(&"x"), []);
}

/// A worker whose first wish never comes back holds up its own others, and those of nobody else.
#[test]
fn a_worker_has_one_turn() {
    let mut jobs = Jobs::new();
    jobs.ask(&"dead", A, at(2), 0).unwrap();
    jobs.ask(&"shared", A, at(2), 1).unwrap();
    jobs.ask(&"own", A, at(2), 2).unwrap();
    jobs.ask(&"shared", B, at(3), 3).unwrap();
    assert_eq!((start(&mut jobs), start(&mut jobs), start(&mut jobs)), (Some("dead"), Some("shared"), None));
    assert_eq!(jobs.finish(&"shared"), [(A, 1), (B, 3)]);
    assert_eq!(start(&mut jobs), None);
    assert_eq!(jobs.expire(at(1)), []);
    assert_eq!(jobs.expire(at(2)), [("dead", A, 0), ("own", A, 2)]);
    assert_eq!(jobs.len(), 1, "what runs is still out");
    jobs.ask(&"dead", B, at(5), 4).unwrap();
    assert_eq!(start(&mut jobs), None, "it runs already");
    assert_eq!(jobs.finish(&"dead"), [(B, 4)]);
}

#[test]
fn few_run_and_few_wait() {
    let mut jobs = Jobs::new();
    for worker in 1..=20 {
        jobs.ask(&worker, WorkerId(worker), at(worker), ()).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| start(&mut jobs)).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    jobs.lose(WorkerId(1));
    jobs.lose(WorkerId(9));
    assert_eq!(start(&mut jobs), None, "the worker is gone, its work is not");
    assert_eq!(jobs.finish(&1), []);
    assert_eq!(start(&mut jobs), Some(10));
    for _ in 1..16 {
        jobs.ask(&30, WorkerId(20), at(30), ()).unwrap();
    }
    assert_eq!(jobs.ask(&30, WorkerId(20), at(30), ()), Err(()));
    assert_eq!(jobs.ask(&30, WorkerId(21), at(30), ()), Ok(()));
}
