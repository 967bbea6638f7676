//! The rolling restart when all goes well: order of actions, canary, surge, remembered restarts.

use super::harness::{Cluster, policy};
use crate::supervisor::{Event, MasterState, Notice, Policy, RestartPhase, RestartState, Ticket};

#[test]
fn the_replacement_comes_first_and_the_canary_must_last() {
    let mut cluster = Cluster::of(2);
    cluster.says_hello(1);
    assert_eq!(cluster.restart(7), ["7 accepted", "spawn 3 in 0 of 2"]);
    assert!(cluster.pass(500).is_empty());
    assert!(cluster.says_ready(3).is_empty(), "nobody goes before the canary has lasted");
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "0: 3 ready of 2", "1: 2 ready of 1"]);
    assert!(cluster.pass(999).is_empty());
    assert_eq!(cluster.pass(1), ["tell 1", "spawn 4 in 1 of 2"]);
    assert_eq!(cluster.says_ready(4), ["tell+signal 2", "release before 2", "7 completed"]);
    assert_eq!(cluster.status().planned, 2);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn draining_does_not_hold_the_verdict() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    cluster.says_ready(2);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "release before 2", "0 completed"]);
    assert_eq!(cluster.rows(), ["0: 2 ready of 2", "0: 1 disconnecting of 1"]);
    assert_eq!(cluster.pass(10_000), ["kill 1"]);
    assert!(cluster.exits(1).is_empty());
    assert_eq!(cluster.rows(), ["0: 2 ready of 2"]);
}

#[test]
fn surge_is_how_many_follow_the_canary_at_a_time() {
    let mut cluster = Cluster::ready(Policy { surge: 2, ..policy(5) });
    assert_eq!(cluster.restart(0), ["0 accepted", "spawn 6 in 0 of 2"]);
    cluster.says_ready(6);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 7 in 1 of 2", "spawn 8 in 2 of 2"]);
    assert_eq!(cluster.says_ready(8), ["tell+signal 3", "spawn 9 in 3 of 2"]);
    assert_eq!(cluster.says_ready(7), ["tell+signal 2", "spawn 10 in 4 of 2"]);
    assert_eq!(cluster.says_ready(9), ["tell+signal 4"]);
    assert_eq!(cluster.says_ready(10), ["tell+signal 5", "release before 2", "0 completed"]);
}

#[test]
fn a_canary_of_zero_is_ready_and_no_more() {
    let mut cluster = Cluster::ready(Policy { canary: std::time::Duration::ZERO, ..policy(1) });
    cluster.restart(0);
    assert_eq!(cluster.says_ready(2), ["tell+signal 1", "release before 2", "0 completed"]);
}

#[test]
fn the_status_tells_how_far_it_is() {
    let mut cluster = Cluster::of(2);
    assert!(cluster.status().restart.is_none());
    cluster.restart(0);
    cluster.says_ready(3);
    cluster.pass(1000);
    let view = cluster.status();
    let restart = view.restart.unwrap();
    assert_eq!((view.state, view.generation.0), (MasterState::Restarting, 1));
    let running = RestartState::Running(RestartPhase::Rest);
    assert_eq!((restart.id.0, restart.state, restart.replaced), (1, running, 1));
    cluster.says_ready(4);
    let view = cluster.status();
    let restart = view.restart.unwrap();
    assert_eq!((view.state, view.generation.0), (MasterState::Running, 2));
    assert_eq!((restart.state, restart.replaced, restart.total), (RestartState::Completed, 2, 2));
}

#[test]
fn restarts_asked_for_meanwhile_are_remembered_as_one() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    assert_eq!(cluster.restart(1), ["1 accepted"]);
    assert_eq!(cluster.restart(2), ["2 accepted"]);
    cluster.says_ready(2);
    let orders = cluster.pass(1000);
    assert_eq!(orders, ["tell+signal 1", "release before 2", "0 completed", "spawn 3 in 0 of 3"]);
    cluster.exits(1);
    cluster.says_ready(3);
    let orders = cluster.pass(1000);
    assert_eq!(orders, ["tell+signal 2", "release before 3", "1 completed", "2 completed"]);
    assert_eq!(cluster.status().restart.unwrap().id.0, 2);
}

/// A remembered restart waits until at most one older generation is still draining.
#[test]
fn draining_generations_do_not_pile_up() {
    let mut cluster = Cluster::of(1);
    for (ticket, new) in [(0, 2), (1, 3)] {
        cluster.restart(ticket);
        cluster.says_ready(new);
        cluster.pass(1000);
    }
    assert_eq!(cluster.rows().len(), 3, "two hang: {:?}", cluster.rows());
    assert_eq!(cluster.restart(2), ["2 accepted"]);
    assert_eq!(cluster.status().state, MasterState::Restarting);
    assert_eq!(cluster.pass(9000), ["kill 1"]);
    assert_eq!(cluster.exits(1), ["spawn 4 in 0 of 4"]);
}

#[test]
fn a_worker_that_cannot_be_killed_does_not_hold_a_restart() {
    let mut cluster = Cluster::of(1);
    for (ticket, new) in [(0, 2), (1, 3)] {
        cluster.restart(ticket);
        cluster.says_ready(new);
        cluster.pass(1000);
    }
    cluster.restart(2);
    assert_eq!(cluster.pass(14_000), ["kill 1", "kill 2", "spawn 4 in 0 of 4"]);
}

#[test]
fn an_empty_seat_is_taken_by_the_replacement() {
    let mut cluster = Cluster::ready(Policy { max_fork_count: 0, ..policy(2) });
    cluster.exits(1);
    assert_eq!(cluster.restart(0), ["0 accepted", "spawn 3 in 0 of 2"]);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["spawn 4 in 1 of 2"], "there is nobody to dismiss in slot 0");
    assert_eq!(cluster.rows(), ["0: 3 ready of 2", "1: 2 ready of 1", "1: 4 starting of 2"]);
}

#[test]
fn an_old_worker_that_crashes_meanwhile_is_replaced_with_its_own_program() {
    let mut cluster = Cluster::of(2);
    cluster.pass(2000);
    cluster.restart(0);
    assert_eq!(cluster.exits(1), ["spawn 4 in 0 of 1"]);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 4", "spawn 5 in 1 of 2"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
}

#[test]
fn five_hundred_restarts_cost_nothing() {
    let mut cluster = Cluster::of(1);
    for round in 0..500 {
        cluster.restart(round);
        cluster.says_ready(round + 2);
        cluster.pass(1000);
        cluster.exits(round + 1);
    }
    let view = cluster.status();
    assert_eq!((view.generation.0, view.planned, view.crashes, view.budget_left), (501, 500, 0, 100));
}

#[test]
fn what_happens_is_told() {
    let mut cluster = Cluster::of(1);
    cluster.notices.clear();
    cluster.restart(0);
    cluster.restart(1);
    cluster.says_ready(2);
    cluster.pass(1000);
    let told: Vec<String> = cluster.notices.iter().map(Notice::to_string).collect();
    assert_eq!(told[0], "restart 1 begins: rolling to generation 2");
    assert!(told[1].starts_with("restart 2 is remembered"), "{told:?}");
    assert_eq!(told[2], "worker 2 (slot 0) is ready after 0 ms");
    assert!(told[3].starts_with("worker 2 is the canary"), "{told:?}");
    assert_eq!(told[4], "worker 2 takes slot 0; worker 1 is told to leave");
    assert_eq!(told[5], "restart 1 completed: 1 worker replaced");
}

#[test]
fn who_has_left_is_told_nothing_and_kept_nowhere() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    for ticket in 1..1000 {
        assert_eq!(cluster.restart(ticket), [format!("{ticket} accepted")]);
        if ticket != 500 {
            assert!(cluster.tell(Event::CallerLeft { ticket: Ticket(ticket) }).is_empty());
        }
    }
    assert!(cluster.tell(Event::CallerLeft { ticket: Ticket(0) }).is_empty());
    assert_eq!(cluster.core.callers(), 1);
    cluster.says_ready(2);
    let orders = cluster.pass(1000);
    assert!(orders.iter().all(|order| !order.ends_with("completed")), "{orders:?}");
    cluster.says_ready(3);
    let orders = cluster.pass(1000);
    assert!(orders.contains(&"500 completed".to_owned()), "{orders:?}");
    assert_eq!(cluster.core.callers(), 0);
}
