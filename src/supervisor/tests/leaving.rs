//! A worker that leaves by its own wish: planned, replaced at once, and bounded all the same.

use super::harness::{Cluster, ms, policy};
use crate::supervisor::{Cause, Policy};

#[test]
fn its_seat_is_filled_at_once_and_no_crash_is_counted() {
    let mut cluster = Cluster::of(2);
    cluster.pass(5000);
    assert_eq!(cluster.says_leaving(1), ["spawn 3 in 0 of 1"]);
    assert_eq!(cluster.rows(), ["0: 3 starting of 1", "0: 1 disconnecting of 1", "1: 2 ready of 1"]);
    assert!(cluster.exits(1).is_empty());
    assert_eq!((cluster.last_cause(0), cluster.budget_left()), (Some(Cause::Stopped), 100));
    let status = cluster.status();
    assert_eq!((status.crashes, status.planned), (0, 1));
}

#[test]
fn it_has_the_disconnect_timeout() {
    let mut cluster = Cluster::of(1);
    cluster.pass(5000);
    cluster.says_leaving(1);
    cluster.says_ready(2);
    assert!(cluster.pass(9999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 1"]);
    cluster.exits(1);
    assert_eq!(cluster.last_cause(0), Some(Cause::KilledAtTimeout));
}

#[test]
fn leaving_again_and_again_before_it_is_of_use_waits_as_quick_failures_do() {
    let mut cluster = Cluster::boot(policy(1));
    for (worker, wait) in [(1, 0), (2, 100), (3, 200), (4, 400)] {
        let spawned = cluster.says_leaving(worker);
        assert_eq!(spawned.len(), usize::from(wait == 0), "{spawned:?}");
        assert_eq!(cluster.pass(wait).len(), usize::from(wait != 0));
        cluster.exits(worker);
    }
    assert_eq!(cluster.budget_left(), 100);
    cluster.says_ready(5);
    cluster.pass(1000);
    assert_eq!(cluster.says_leaving(5), ["spawn 6 in 0 of 1"], "it has been of use");
}

#[test]
fn a_replacement_that_leaves_ends_the_restart() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    cluster.says_ready(2);
    let reason = "0 aborted: worker 2 left by itself before it took over";
    assert!(cluster.says_leaving(2).is_empty(), "the verdict tells how it ended");
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "0: 2 disconnecting of 2"]);
    assert_eq!(cluster.exits(2), [reason]);
}

#[test]
fn a_new_worker_that_leaves_its_seat_during_the_restart_is_followed_by_another_of_its_kind() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 4 in 1 of 2"]);
    assert_eq!(cluster.says_leaving(3), ["spawn 5 in 0 of 2"]);
    assert_eq!(cluster.says_ready(4), ["tell+signal 2"], "not complete before all serve");
    assert_eq!(cluster.says_ready(5), ["release before 2", "0 completed"]);
}

#[test]
fn one_that_leaves_during_the_rollback_makes_room() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    cluster.says_ready(3);
    cluster.pass(1000);
    assert_eq!(cluster.exits(4), ["spawn 5 in 0 of 1"]);
    assert!(cluster.says_leaving(3).is_empty());
    assert_eq!(cluster.says_ready(5), ["0 aborted: worker 4 died before it was ready: exit status 1"]);
}

#[test]
fn who_was_told_or_killed_cannot_leave_by_itself() {
    let mut cluster = Cluster::ready(Policy { disconnect_timeout: ms(50), ..policy(1) });
    cluster.signal();
    assert!(cluster.says_leaving(1).is_empty());
    assert_eq!(cluster.pass(50), ["kill 1"]);
    assert!(cluster.says_leaving(1).is_empty() && cluster.says_leaving(9).is_empty());
    assert_eq!(cluster.exits(1), ["finish Graceful"]);
}
