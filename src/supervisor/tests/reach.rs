//! Workers that the master may not signal: they go on, and nobody says that they have gone.

use super::harness::{Cluster, ms, policy};
use crate::supervisor::{Notice, Policy, RestartState, Severity};

const DENIED: &str = "0 aborted: worker 1 cannot be signalled: operation not permitted";

/// Two seats, and the old workers may not be signalled.
fn out_of_reach(workers: usize) -> Cluster {
    let mut cluster = Cluster::of(workers);
    cluster.denied = (1..=workers as u64).collect();
    cluster.restart(0);
    cluster.says_ready(workers as u64 + 1);
    cluster
}

#[test]
fn a_restart_that_cannot_tell_the_old_worker_is_not_completed() {
    let mut cluster = out_of_reach(1);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 3 in 0 of 1"], "the release goes back");
    assert_eq!(cluster.says_ready(3), ["tell+signal 2", DENIED]);
    let view = cluster.status().restart.expect("a restart");
    assert_eq!((view.state, view.failed), (RestartState::Aborted, None));
    let said = "worker 1 (slot 0) cannot be signalled: operation not permitted; it goes on until it leaves by itself";
    let notice = cluster.notices.iter().find(|notice| matches!(notice, Notice::CannotSignal(_)));
    let notice = notice.expect("it is said");
    assert_eq!((notice.to_string(), notice.severity()), (said.to_owned(), Severity::Error));
}

#[test]
fn it_goes_no_further_than_the_first() {
    let mut cluster = out_of_reach(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 5 in 1 of 2", "tell 5", "spawn 6 in 0 of 1"]);
    assert_eq!(cluster.says_ready(6), ["tell+signal 4", DENIED]);
    let rows = cluster.rows();
    for row in ["0: 6 ready of 1", "1: 2 ready of 1", "2: 3 ready of 1", "0: 1 disconnecting of 1"] {
        assert!(rows.contains(&row.to_owned()), "{rows:?}");
    }
}

/// It reads its channel, and needs no signal.
#[test]
fn one_that_said_hello_is_told_all_the_same() {
    let mut cluster = Cluster::of(1);
    cluster.says_hello(1);
    cluster.denied.insert(1);
    cluster.restart(0);
    cluster.says_ready(2);
    assert_eq!(cluster.pass(1000), ["tell 1", "release before 2", "0 completed"]);
}

#[test]
fn one_that_may_not_be_killed_is_beyond_reach_at_once() {
    let mut cluster = Cluster::ready(Policy { disconnect_timeout: ms(1000), ..policy(2) });
    cluster.denied.insert(2);
    assert_eq!(cluster.scale_to(1), ["tell+signal 2"]);
    assert_eq!(cluster.pass(1000), ["kill 2", "close slot 1"]);
    assert!(cluster.pass(10_000).is_empty());
    assert_eq!(cluster.signal(), ["close", "tell+signal 1"]);
    assert_eq!(cluster.exits(1), ["finish Forced"], "somebody is left behind");
}

#[test]
fn a_seat_whose_worker_may_not_be_killed_goes_to_another() {
    let mut cluster = Cluster::ready(Policy { watchdog: Some(ms(2000)), ..policy(1) });
    cluster.denied.insert(1);
    assert_eq!(cluster.pass(2000), ["abort 1"]);
    assert_eq!(cluster.pass(5000), ["kill 1", "spawn 2 in 0 of 1"]);
}
