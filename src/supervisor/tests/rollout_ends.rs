//! The rolling restart when it fails: what aborts it, who stays, who is told.

use super::harness::{Cluster, Spawning, ms, policy};
use crate::supervisor::{Cause, ExitStatus, FailureKind, MasterState, Policy, RestartState};

#[test]
fn a_replacement_that_dies_aborts_and_the_old_workers_stay() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    assert_eq!(cluster.exits(3), ["0 aborted: worker 3 died before it was ready: exit status 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"]);
    let view = cluster.status();
    assert_eq!((view.state, view.generation.0), (MasterState::Running, 1));
    assert_eq!((view.crashes, view.budget_left, view.planned), (0, 100, 1));
    let restart = view.restart.unwrap();
    assert_eq!((restart.state, restart.replaced, restart.total), (RestartState::Aborted, 0, 2));
    let failed = restart.failed.unwrap();
    assert_eq!((failed.worker.0, failed.cause), (3, Cause::BootFailed));
    assert_eq!(failed.status, Some(ExitStatus::Code(1)));
    assert_eq!(cluster.last_cause(0), Some(Cause::BootFailed));
    assert_eq!(cluster.wait(), None, "nothing more is going on");
}

#[test]
fn the_canary_that_dies_after_it_was_ready_aborts_too() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    cluster.says_ready(2);
    cluster.pass(999);
    assert_eq!(cluster.exits(2), ["0 aborted: worker 2 died soon after its start: exit status 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1"]);
}

#[test]
fn a_late_loop_does_not_let_a_dead_canary_pass() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    cluster.says_ready(3);
    cluster.stall(5000);
    assert_eq!(cluster.says_hello(2), [""; 0], "told first, though the trial's time is over");
    assert_eq!(cluster.exits(3), ["0 aborted: worker 3 crashed: exit status 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"]);
}

#[test]
fn a_replacement_that_is_not_ready_in_time_aborts() {
    let mut cluster = Cluster::ready(Policy { ready_timeout: ms(500), ..policy(1) });
    cluster.restart(0);
    assert_eq!(cluster.pass(500), ["kill 2", "0 aborted: worker 2 was not ready within 500 ms"]);
    cluster.exits(2);
    assert_eq!(cluster.last_cause(0), Some(Cause::ReadyTimeout));
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn a_replacement_that_cannot_be_spawned_aborts() {
    for kind in [FailureKind::Passing, FailureKind::Lasting] {
        let mut cluster = Cluster::of(1);
        cluster.spawning = Spawning::Fails(kind);
        let reason = "worker 2 could not be started: exec ./server: no such file";
        assert_eq!(cluster.restart(0), ["0 accepted", "spawn 2 in 0 of 2", &format!("0 aborted: {reason}")]);
        assert_eq!(cluster.rows(), ["0: 1 ready of 1"]);
        assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
    }
}

#[test]
fn the_other_replacements_are_told_to_leave_and_get_their_time() {
    let mut cluster = Cluster::ready(Policy { surge: 2, ready_timeout: ms(500), ..policy(3) });
    cluster.restart(0);
    cluster.says_ready(4);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 5 in 1 of 2", "spawn 6 in 2 of 2"]);
    cluster.exits(1);
    let orders = cluster.pass(500);
    assert_eq!(orders, ["kill 5", "tell+signal 6", "0 aborted: worker 5 was not ready within 500 ms"]);
    cluster.exits(5);
    assert!(cluster.pass(9999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 6"]);
}

#[test]
fn a_restart_after_an_aborted_one_uses_a_new_number() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    cluster.exits(2);
    assert_eq!(cluster.restart(1), ["1 accepted", "spawn 3 in 0 of 3"]);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "release before 3", "1 completed"]);
    assert_eq!(cluster.status().generation.0, 3);
}

#[test]
fn a_remembered_restart_follows_an_aborted_one() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    cluster.restart(1);
    let orders = cluster.exits(2);
    let aborted = "0 aborted: worker 2 died before it was ready: exit status 1";
    assert_eq!(orders, [aborted, "spawn 3 in 0 of 3"]);
}

#[test]
fn a_shutdown_overtakes_the_running_and_the_remembered_restart() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    cluster.restart(1);
    let orders = cluster.ask_shutdown(2);
    assert_eq!(
        orders,
        [
            "close",
            "tell 3",
            "0 aborted: shutdown",
            "1 aborted: shutdown",
            "tell+signal 1",
            "tell+signal 2",
            "2 accepted"
        ]
    );
    assert!(cluster.says_ready(3).is_empty());
    for worker in 1..=2 {
        assert!(cluster.exits(worker).is_empty());
    }
    assert_eq!(cluster.exits(3), ["finish Graceful"]);
}

#[test]
fn the_words_of_a_failed_replacement_reach_the_verdict() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    let (worker, reason) = (crate::supervisor::WorkerId(2), "no database".to_owned());
    cluster.tell(crate::supervisor::Event::SaidFailed { worker, reason });
    let orders = cluster.exits(2);
    assert_eq!(orders, ["0 aborted: worker 2 died before it was ready: exit status 1 (no database)"]);
}
