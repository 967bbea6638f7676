//! More and fewer workers: who comes, who goes, what happens to a restart under way.

use super::harness::{Cluster, Spawning, ms, policy};
use crate::supervisor::{
    Cause, Event, FailureKind, Notice, Policy, Readiness, RestartPhase, RestartState, Scale, Severity,
};

#[test]
fn new_slots_are_filled_at_once_and_by_the_generation_that_serves() {
    let mut cluster = Cluster::of(2);
    assert_eq!(cluster.scale_to(4), ["spawn 3 in 2 of 1", "spawn 4 in 3 of 1"]);
    assert_eq!(cluster.status().wanted, 4);
    assert_eq!(cluster.scale(Scale::OneMore), ["spawn 5 in 4 of 1"]);
    let view = cluster.status();
    assert_eq!((view.crashes, view.planned, view.budget_left), (0, 0, 100), "no replacement at all");
}

#[test]
fn the_highest_slots_go_gracefully_and_close_when_they_are_left() {
    let mut cluster = Cluster::of(3);
    cluster.says_hello(3);
    assert_eq!(cluster.scale_to(1), ["tell+signal 2", "tell 3"]);
    let rows = ["0: 1 ready of 1", "1: 2 disconnecting of 1", "2: 3 disconnecting of 1"];
    assert_eq!(cluster.rows(), rows);
    assert_eq!(cluster.exits(3), ["close slot 2"]);
    assert!(cluster.pass(9999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 2"], "at the disconnect time-out");
    assert_eq!(cluster.exits(2), ["close slot 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn one_fewer_stops_at_one_and_one_more_at_the_most() {
    let mut cluster = Cluster::of(2);
    assert_eq!(cluster.scale(Scale::OneFewer), ["tell+signal 2"]);
    assert!(cluster.scale(Scale::OneFewer).is_empty());
    assert!(cluster.scale_to(1).is_empty(), "as many as there are");
    assert_eq!(cluster.status().wanted, 1);
    cluster.scale_to(4096);
    assert!(cluster.scale(Scale::OneMore).is_empty());
    assert_eq!((cluster.status().wanted, cluster.spawns), (4096, 2 + 4095));
    let nothing = |notice: &&Notice| matches!(notice, Notice::ScaleChangesNothing { .. });
    assert_eq!(cluster.notices.iter().filter(nothing).count(), 3);
}

#[test]
fn a_slot_that_comes_back_while_its_old_worker_drains_is_filled_anew() {
    let mut cluster = Cluster::of(2);
    cluster.scale_to(1);
    assert_eq!(cluster.scale_to(2), ["spawn 3 in 1 of 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 3 starting of 1", "1: 2 disconnecting of 1"]);
    assert!(cluster.exits(2).is_empty(), "the slot is wanted: it keeps its sockets");
    assert_eq!(cluster.last_cause(1), Some(Cause::Stopped));
}

#[test]
fn a_slot_that_comes_back_remembers_its_last_exit_and_starts_its_delays_anew() {
    let mut cluster = Cluster::of(2);
    cluster.exits(2);
    assert!(cluster.exits(3).is_empty(), "the second quick failure waits");
    assert_eq!(cluster.scale_to(1), ["close slot 1"], "an empty seat closes at once");
    assert!(cluster.pass(10_000).is_empty(), "nobody comes any more");
    assert_eq!(cluster.scale_to(2), ["spawn 4 in 1 of 1"]);
    assert_eq!(cluster.last_cause(1), Some(Cause::BootFailed));
    assert_eq!(cluster.exits(4), ["spawn 5 in 1 of 1"], "replaced at once, as the first failure");
}

#[test]
fn a_booting_worker_is_told_too_and_its_death_is_no_crash() {
    let mut cluster = Cluster::of(1);
    cluster.scale_to(2);
    assert_eq!(cluster.scale_to(1), ["tell 2"]);
    assert_eq!(cluster.exits(2), ["close slot 1"]);
    assert_eq!(cluster.status().crashes, 0);
}

#[test]
fn a_restart_rolls_the_slots_that_come() {
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    assert_eq!(cluster.scale_to(2), ["spawn 3 in 1 of 1"], "nobody knows yet that the new program is good");
    cluster.says_ready(2);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 4 in 1 of 2"]);
    assert_eq!(cluster.says_ready(4), ["tell+signal 3", "release before 2", "0 completed"]);
    let restart = cluster.status().restart.unwrap();
    assert_eq!((restart.replaced, restart.total), (2, 2));
}

#[test]
fn a_replacement_in_a_slot_that_goes_is_no_failure_of_the_restart() {
    let mut cluster = Cluster::ready(Policy { surge: 2, ..policy(3) });
    cluster.restart(0);
    cluster.says_ready(4);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 5 in 1 of 2", "spawn 6 in 2 of 2"]);
    assert_eq!(cluster.scale_to(2), ["tell+signal 3", "tell 6"]);
    assert!(cluster.exits(6).is_empty(), "the old one is still there");
    assert_eq!(cluster.exits(3), ["close slot 2"]);
    assert_eq!(cluster.status().restart.unwrap().state, RestartState::Running(RestartPhase::Rest));
    assert_eq!(cluster.says_ready(5), ["tell+signal 2", "release before 2", "0 completed"]);
}

#[test]
fn a_restart_whose_last_old_slot_goes_is_complete() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 4 in 1 of 2"]);
    let orders = cluster.scale_to(1);
    assert_eq!(orders, ["tell+signal 2", "tell 4", "release before 2", "0 completed"]);
    assert_eq!(cluster.status().generation.0, 2);
    assert_eq!(cluster.scale_to(2), ["spawn 5 in 1 of 2"], "the generation that serves now");
}

#[test]
fn it_is_refused_once_a_shutdown_has_begun() {
    let mut cluster = Cluster::of(2);
    cluster.ask_shutdown(0);
    assert!(cluster.scale_to(4).is_empty());
    assert_eq!(cluster.status().refused, 1);
    cluster.exits(1);
    assert_eq!(cluster.exits(2), ["finish Graceful"]);
}

#[test]
fn a_shutdown_waits_for_slots_that_were_given_up_before() {
    let mut cluster = Cluster::of(2);
    cluster.scale_to(1);
    assert_eq!(cluster.signal(), ["close", "tell+signal 1"]);
    assert!(cluster.exits(1).is_empty());
    assert_eq!(cluster.exits(2), ["finish Graceful"]);
}

#[test]
fn fewer_than_min_ready_is_taken_and_said() {
    let mut cluster = Cluster::ready(Policy { min_ready: 2, ..policy(2) });
    cluster.notices.clear();
    cluster.scale_to(1);
    assert_eq!(cluster.status().readiness, Readiness::NotReady);
    let said = &cluster.notices[0];
    assert_eq!(said.to_string(), "scaling from 2 to 1 worker; /ready will answer 503: minReady is 2");
    assert_eq!(said.severity(), Severity::Warning);
}

#[test]
fn before_the_start_it_changes_how_many_are_started() {
    let mut cluster = Cluster::unstarted(policy(2));
    assert!(cluster.scale_to(3).is_empty());
    assert_eq!(cluster.tell(Event::Started).len(), 3);
}

#[test]
fn stability_is_that_of_the_wanted_slots() {
    let mut cluster = Cluster::ready(Policy { stable_after: ms(500), ..policy(2) });
    cluster.exits(1);
    cluster.says_ready(3);
    assert_eq!(cluster.budget_left(), 99);
    cluster.scale_to(1);
    cluster.pass(500);
    assert_eq!(cluster.budget_left(), 100, "the slot that went does not hold it");
}

#[test]
fn a_new_slot_that_cannot_be_spawned_backs_off_like_any_other() {
    let mut cluster = Cluster::of(1);
    cluster.spawning = Spawning::Fails(FailureKind::Passing);
    assert_eq!(cluster.scale_to(2), ["spawn 2 in 1 of 1"]);
    cluster.spawning = Spawning::Works;
    assert_eq!(cluster.pass(100), ["spawn 3 in 1 of 1"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}
