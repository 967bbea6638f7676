//! The rolling restart when it fails: what aborts it, who stays, who is told.

use super::harness::{Cluster, Hearing, Spawning, ms, policy};
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
    cluster.hearing = Hearing::Later;
    cluster.stall(5000);
    assert_eq!(cluster.says_hello(2), ["hear out 3"], "the trial's time is over");
    assert_eq!(cluster.exits(3), ["0 aborted: worker 3 crashed: exit status 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"]);
}

#[test]
fn a_replacement_that_is_not_ready_in_time_aborts() {
    let mut cluster = Cluster::ready(Policy { ready_timeout: ms(500), ..policy(1) });
    cluster.restart(0);
    assert_eq!(cluster.pass(500), ["kill 2"], "the verdict tells how it ended, so it comes after that");
    assert_eq!(cluster.exits(2), ["0 aborted: worker 2 was not ready within 500 ms"]);
    let failed = cluster.status().restart.unwrap().failed.unwrap();
    assert_eq!((failed.cause, failed.status), (Cause::ReadyTimeout, Some(ExitStatus::Code(1))));
    assert_eq!(cluster.last_cause(0), Some(Cause::ReadyTimeout));
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn a_replacement_that_cannot_be_spawned_aborts() {
    let mut cluster = Cluster::of(1);
    cluster.spawning = Spawning::Fails(FailureKind::Lasting);
    let reason = "worker 2 could not be started: exec ./server: no such file";
    assert_eq!(cluster.restart(0), ["0 accepted", "spawn 2 in 0 of 2", &format!("0 aborted: {reason}")]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1"]);
    let view = cluster.status();
    assert_eq!((view.crashes, view.budget_left, view.planned), (0, 100, 0));
}

#[test]
fn a_spawn_that_fails_in_passing_is_tried_again_and_is_no_failure_of_the_release() {
    let mut cluster = Cluster::of(1);
    cluster.spawning = Spawning::Fails(FailureKind::Passing);
    assert_eq!(cluster.restart(0), ["0 accepted", "spawn 2 in 0 of 2"]);
    assert_eq!(cluster.wait(), Some(100));
    assert_eq!(cluster.pass(300), ["spawn 3 in 0 of 2", "spawn 4 in 0 of 2"], "after 100 and 100 ms");
    cluster.spawning = Spawning::Works;
    assert_eq!(cluster.pass(100), ["spawn 5 in 0 of 2"], "after 200 ms more");
    cluster.says_ready(5);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "release before 2", "0 completed"]);
    let view = cluster.status();
    assert_eq!((view.crashes, view.budget_left, view.planned), (0, 100, 1));
}

#[test]
fn a_want_that_lasts_longer_than_a_replacement_may_take_aborts() {
    let mut cluster = Cluster::ready(Policy { ready_timeout: ms(350), ..policy(1) });
    cluster.spawning = Spawning::Fails(FailureKind::Passing);
    cluster.restart(0);
    let aborted = "0 aborted: worker 5 could not be started: exec ./server: no such file";
    let orders = cluster.pass(1000);
    assert_eq!(orders, ["spawn 3 in 0 of 2", "spawn 4 in 0 of 2", "spawn 5 in 0 of 2", aborted]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1"]);
    assert_eq!(cluster.wait(), None);
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
