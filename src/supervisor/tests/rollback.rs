//! The way back after a refused release: who comes, who goes, in which order, and when the verdict is told.

use super::harness::{Cluster, Spawning, ms, policy};
use crate::supervisor::{
    Cause, Event, ExitStatus, FailureKind, MasterState, Notice, Policy, RestartPhase, RestartState, WorkerId,
    WorkerState,
};

/// Three workers of generation 1; workers 4 and 5 of generation 2 have taken slots 0 and 1, and 6 is on trial.
fn two_of_three(policy: Policy) -> Cluster {
    let mut cluster = Cluster::ready(policy);
    cluster.restart(0);
    cluster.says_ready(4);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 5 in 1 of 2"]);
    assert_eq!(cluster.says_ready(5), ["tell+signal 2", "spawn 6 in 2 of 2"]);
    for old in 1..=2 {
        assert!(cluster.exits(old).is_empty());
    }
    cluster
}

const THIRD_FAILS: &str = "0 aborted: worker 6 died before it was ready: exit status 1";

#[test]
fn what_was_replaced_is_replaced_again_one_at_a_time_replacement_first() {
    let mut cluster = two_of_three(policy(3));
    assert_eq!(cluster.exits(6), ["spawn 7 in 0 of 1"]);
    assert_eq!(cluster.rows()[..2], ["0: 4 ready of 2", "0: 7 starting of 1"]);
    assert_eq!(cluster.says_ready(7), ["tell+signal 4", "spawn 8 in 1 of 1"]);
    assert_eq!(cluster.status().state, MasterState::Restarting);
    assert_eq!(cluster.says_ready(8), ["tell+signal 5", THIRD_FAILS]);
    for refused in 4..=5 {
        cluster.exits(refused);
    }
    assert_eq!(cluster.rows(), ["0: 7 ready of 1", "1: 8 ready of 1", "2: 3 ready of 1"]);
    let view = cluster.status();
    assert_eq!((view.state, view.generation.0), (MasterState::Running, 1));
    assert_eq!((view.crashes, view.budget_left, view.planned), (0, 100, 5));
    assert_eq!(cluster.forgotten, [2], "the refused program is let go, the one that serves is not");
    assert_eq!(cluster.restart(1), ["1 accepted", "spawn 9 in 0 of 3"], "the number is used up");
}

#[test]
fn the_status_tells_why_and_how_far_it_is() {
    let mut cluster = two_of_three(policy(3));
    let phase = |cluster: &Cluster| cluster.status().restart.unwrap().state;
    assert_eq!(phase(&cluster), RestartState::Running(RestartPhase::Rest));
    cluster.exits(6);
    let restart = cluster.status().restart.unwrap();
    assert_eq!(restart.state, RestartState::Running(RestartPhase::RollingBack));
    assert_eq!((restart.replaced, restart.total), (2, 3));
    assert_eq!(restart.reason.unwrap(), "worker 6 died before it was ready: exit status 1");
    assert_eq!(restart.failed.unwrap().worker, WorkerId(6));
    cluster.says_ready(7);
    assert_eq!(cluster.status().restart.unwrap().replaced, 1);
    cluster.says_ready(8);
    let restart = cluster.status().restart.unwrap();
    assert_eq!((restart.state, restart.replaced), (RestartState::Aborted, 0));
    let told: Vec<String> = cluster.notices.iter().map(Notice::to_string).collect();
    let fails = "restart 1 fails with 2 of 3 workers replaced: worker 6 died before it was ready: exit status 1; \
                 rolling back to generation 1";
    assert!(told.iter().any(|line| line == fails), "{told:?}");
}

#[test]
fn surge_is_how_many_come_back_at_a_time() {
    let mut cluster = Cluster::ready(Policy { surge: 2, ..policy(4) });
    cluster.restart(0);
    cluster.says_ready(5);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 6 in 1 of 2", "spawn 7 in 2 of 2"]);
    assert_eq!(cluster.says_ready(6), ["tell+signal 2", "spawn 8 in 3 of 2"]);
    let orders = cluster.exits(7);
    assert_eq!(orders, ["tell 8", "spawn 9 in 0 of 1", "spawn 10 in 1 of 1"]);
    cluster.says_ready(10);
    assert_eq!(
        cluster.says_ready(9),
        ["tell+signal 5", "0 aborted: worker 7 died before it was ready: exit status 1"]
    );
    assert!(!cluster.pass(9999).contains(&"kill 8".to_owned()), "who is told to leave has its time");
    assert!(cluster.pass(1).contains(&"kill 8".to_owned()));
}

#[test]
fn a_new_worker_that_crashes_in_its_seat_refuses_the_release() {
    let mut cluster = two_of_three(policy(3));
    assert_eq!(cluster.exits(4), ["tell 6", "spawn 7 in 0 of 1", "spawn 8 in 1 of 1"]);
    assert_eq!(cluster.rows()[..2], ["0: 4 backoff of 1", "0: 7 starting of 1"]);
    cluster.says_ready(7);
    let aborted = "0 aborted: worker 4 crashed: exit status 1";
    assert_eq!(cluster.says_ready(8), ["tell+signal 5", aborted]);
    let view = cluster.status();
    assert_eq!((view.crashes, view.budget_left), (0, 100), "the release's failure, not a crash in service");
    let failed = view.restart.unwrap().failed.unwrap();
    assert_eq!((failed.worker, failed.cause), (WorkerId(4), Cause::Crashed));
}

#[test]
fn once_the_restart_is_over_a_crash_is_a_crash() {
    let mut cluster = two_of_three(policy(3));
    assert_eq!(cluster.says_ready(6), ["tell+signal 3", "release before 2", "0 completed"]);
    assert_eq!(cluster.exits(4), ["spawn 7 in 0 of 2"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
    assert_eq!(cluster.forgotten, [1]);
}

#[test]
fn refused_workers_that_crash_meanwhile_are_not_counted() {
    let mut cluster = two_of_three(policy(3));
    cluster.exits(6);
    assert_eq!(cluster.exits(5), ["spawn 8 in 1 of 1"], "an empty seat waits for no width");
    assert!(cluster.exits(4).is_empty(), "its successor is on its way");
    cluster.says_ready(7);
    assert_eq!(cluster.says_ready(8), [THIRD_FAILS]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn an_old_worker_that_crashes_meanwhile_is_a_crash_and_is_waited_for() {
    let mut cluster = two_of_three(policy(3));
    cluster.exits(6);
    assert_eq!(cluster.exits(3), ["spawn 8 in 2 of 1"]);
    cluster.says_ready(7);
    assert_eq!(cluster.says_ready(9), ["tell+signal 5"]);
    assert_eq!(cluster.status().state, MasterState::Restarting);
    assert_eq!(cluster.says_ready(8), [THIRD_FAILS]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
}

#[test]
fn a_seat_that_flaps_by_itself_does_not_hold_the_verdict() {
    let mut cluster = Cluster::of(2);
    cluster.pass(2000);
    cluster.exits(2);
    cluster.exits(3);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 3 backoff of 1"]);
    cluster.restart(0);
    assert_eq!(cluster.exits(4), ["0 aborted: worker 4 died before it was ready: exit status 1"]);
}

#[test]
fn a_seat_that_boots_for_the_first_time_holds_the_verdict() {
    let mut cluster = Cluster::boot(policy(2));
    cluster.says_ready(1);
    cluster.restart(0);
    assert!(cluster.exits(3).is_empty());
    assert_eq!(cluster.says_ready(2), ["0 aborted: worker 3 died before it was ready: exit status 1"]);
}

#[test]
fn a_comeback_that_fails_is_tried_again_and_ends_nothing() {
    let mut cluster = two_of_three(Policy { max_fork_count: 0, ..policy(3) });
    cluster.exits(6);
    assert!(cluster.exits(7).is_empty());
    assert_eq!(cluster.pass(100), ["spawn 8 in 0 of 1"]);
    cluster.spawning = Spawning::Fails(FailureKind::Lasting);
    cluster.exits(8);
    assert_eq!(cluster.pass(300), ["spawn 9 in 0 of 1", "spawn 10 in 0 of 1"], "after 100 and 200 ms");
    cluster.spawning = Spawning::Works;
    assert_eq!(cluster.pass(400), ["spawn 11 in 0 of 1"]);
    cluster.pass(60_000);
    assert_eq!(cluster.rows()[0], "0: 4 ready of 2", "the refused worker serves until somebody takes over");
    cluster.says_ready(11);
    let view = cluster.status();
    assert_eq!((view.state, view.crashes), (MasterState::Restarting, 0));
}

#[test]
fn a_comeback_that_is_not_ready_in_time_is_tried_again() {
    let mut cluster = two_of_three(Policy { ready_timeout: ms(500), ..policy(3) });
    cluster.exits(6);
    assert_eq!(cluster.pass(500), ["kill 7"]);
    assert!(cluster.exits(7).is_empty());
    assert_eq!(cluster.pass(100), ["spawn 8 in 0 of 1"]);
}

/// The verdict carries how the failed worker ended, whoever ended in its slot since.
#[test]
fn the_verdict_tells_the_end_of_the_worker_that_failed() {
    let mut cluster = two_of_three(Policy { ready_timeout: ms(500), ..policy(3) });
    assert_eq!(cluster.pass(500), ["kill 6", "spawn 7 in 0 of 1"], "nobody waits for the dying");
    cluster.says_ready(7);
    assert_eq!(cluster.says_ready(8), ["tell+signal 5"]);
    let (worker, status) = (WorkerId(6), ExitStatus::Signal(9));
    let stderr = vec!["out of licences".to_owned()];
    let orders = cluster.tell(Event::Exited { worker, status, stderr: stderr.clone() });
    assert_eq!(orders, ["0 aborted: worker 6 was not ready within 500 ms"]);
    let failed = cluster.status().restart.unwrap().failed.unwrap();
    assert_eq!((failed.cause, failed.status, failed.stderr), (Cause::ReadyTimeout, Some(status), stderr));
}

#[test]
fn a_failed_worker_that_cannot_be_killed_does_not_hold_the_verdict() {
    let mut cluster = Cluster::ready(Policy { ready_timeout: ms(500), ..policy(1) });
    cluster.restart(0);
    assert_eq!(cluster.pass(500), ["kill 2"]);
    assert_eq!(cluster.pass(5000), ["0 aborted: worker 2 was not ready within 500 ms"]);
}

#[test]
fn a_restart_asked_for_meanwhile_is_remembered_and_follows() {
    let mut cluster = two_of_three(policy(3));
    cluster.exits(6);
    assert_eq!(cluster.restart(1), ["1 accepted"]);
    assert_eq!(cluster.restart(2), ["2 accepted"]);
    cluster.says_ready(7);
    assert_eq!(cluster.says_ready(8), ["tell+signal 5", THIRD_FAILS, "spawn 9 in 0 of 3"]);
    cluster.says_ready(9);
    cluster.pass(1000);
    cluster.says_ready(10);
    assert_eq!(cluster.says_ready(11), ["tell+signal 3", "release before 3", "1 completed", "2 completed"]);
    assert_eq!(cluster.forgotten, [2, 1]);
}

/// Nothing takes the seats back: whoever has mended the release must be able to roll it out all the same.
#[test]
fn a_rollback_that_fails_for_long_gives_way_to_a_restart() {
    let mut cluster = two_of_three(Policy { ready_timeout: ms(500), ..policy(3) });
    cluster.exits(6);
    cluster.spawning = Spawning::Fails(FailureKind::Lasting);
    cluster.exits(7);
    assert_eq!(cluster.exits(5), ["spawn 8 in 1 of 1"]);
    assert_eq!(cluster.restart(1), ["1 accepted"]);
    let orders = cluster.pass(499);
    assert!(orders.iter().all(|order| order.starts_with("spawn")), "{orders:?}");
    let orders = cluster.pass(1);
    let gave_way = "0 aborted: worker 6 died before it was ready: exit status 1; \
                    the rollback failed and gave way to the next restart";
    assert!(orders.contains(&gave_way.to_owned()), "{orders:?}");
    assert!(orders.iter().any(|order| order.ends_with("in 0 of 3")), "{orders:?}");
    assert_eq!(cluster.forgotten, [2]);
    cluster.spawning = Spawning::Works;
    cluster.pass(400);
    for worker in 1..30 {
        cluster.says_ready(worker);
    }
    assert_eq!(cluster.forgotten, [2, 3], "the second one met the same want, and is rolled back");
    assert!(
        cluster.status().workers.iter().all(|row| row.state != WorkerState::Ready || row.generation.0 == 1)
    );
    assert_eq!(cluster.status().state, MasterState::Running);
}

#[test]
fn a_shutdown_overtakes_a_rollback() {
    let mut cluster = two_of_three(policy(3));
    cluster.exits(4);
    cluster.restart(1);
    let orders = cluster.ask_shutdown(2);
    assert_eq!(orders[0], "close");
    assert!(orders.contains(&"0 aborted: shutdown".to_owned()), "{orders:?}");
    assert!(orders.contains(&"1 aborted: shutdown".to_owned()), "{orders:?}");
    for worker in [3, 5, 6, 7] {
        assert!(cluster.exits(worker).is_empty(), "{worker}");
    }
    assert_eq!(cluster.exits(8), ["finish Graceful"]);
    assert_eq!(cluster.spawns, 8);
}
