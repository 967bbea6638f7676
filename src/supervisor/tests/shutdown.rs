//! Graceful and forced shutdown: who is told, when it is enough, how it is called.

use super::harness::{Cluster, policy};
use crate::supervisor::{Cause, Event, MasterState, Policy};

#[test]
fn the_listeners_are_closed_before_anybody_is_told() {
    let mut cluster = Cluster::of(2);
    cluster.says_hello(1);
    assert_eq!(cluster.signal(), ["close", "tell 1", "tell+signal 2"]);
    assert_eq!(cluster.status().state, MasterState::ShuttingDown);
    assert_eq!(cluster.rows(), ["0: 1 disconnecting of 1", "1: 2 disconnecting of 1"]);
    assert!(cluster.exits(2).is_empty(), "nobody comes any more");
    assert_eq!(cluster.exits(1), ["finish Graceful"]);
    assert_eq!(cluster.wait(), None);
}

#[test]
fn a_booting_worker_is_told_like_the_rest_and_an_empty_seat_stays_empty() {
    let mut cluster = Cluster::boot(policy(2));
    cluster.exits(1);
    cluster.exits(3);
    assert_eq!(cluster.signal(), ["close", "tell 2"]);
    assert_eq!(cluster.pass(9000), ["signal 2"]);
    assert_eq!(cluster.exits(2), ["finish Graceful"]);
}

/// A worker that has begun a moment ago may be about to say hello, and then to accept: the signal that ends
/// programs of other kinds would cut off its first client.
#[test]
fn a_worker_that_may_be_about_to_say_hello_is_signalled_only_when_it_has_not() {
    for (age, says_hello, told, later) in [
        (0, false, "tell 1", vec!["signal 1"]),
        (249, false, "tell 1", vec!["signal 1"]),
        (249, true, "tell 1", vec![]),
        (250, false, "tell+signal 1", vec![]),
    ] {
        let mut cluster = Cluster::boot(policy(1));
        cluster.pass(age);
        assert_eq!(cluster.signal(), ["close", told], "after {age} ms");
        if says_hello {
            cluster.says_hello(1);
        }
        assert_eq!(cluster.pass(9000), later, "after {age} ms");
    }
}

#[test]
fn a_planned_stop_is_recorded_as_stopped() {
    let mut cluster = Cluster::of(2);
    cluster.signal();
    cluster.exits(1);
    assert_eq!(cluster.last_cause(0), None, "the row is gone");
    let mut cluster = Cluster::of(1);
    cluster.restart(0);
    cluster.says_ready(2);
    cluster.pass(1000);
    cluster.exits(1);
    assert_eq!(cluster.last_cause(0), Some(Cause::Stopped));
    assert_eq!(cluster.status().crashes, 0);
}

#[test]
fn a_kill_at_the_disconnect_timeout_is_still_graceful() {
    let mut cluster = Cluster::of(1);
    cluster.signal();
    assert!(cluster.pass(9999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 1"]);
    assert_eq!(cluster.exits(1), ["finish Graceful"]);
}

#[test]
fn a_worker_that_survives_its_kill_is_left_behind_and_that_is_not_graceful() {
    let mut cluster = Cluster::of(2);
    cluster.signal();
    cluster.exits(2);
    assert_eq!(cluster.pass(10_000), ["kill 1"]);
    assert!(cluster.pass(4999).is_empty());
    assert_eq!(cluster.pass(1), ["finish Forced"]);
}

#[test]
fn a_signal_repeated_within_300_ms_is_one_order() {
    for (after, orders) in [(0, vec![]), (299, vec![]), (300, vec!["kill 1"]), (5000, vec!["kill 1"])] {
        let mut cluster = Cluster::of(1);
        cluster.signal();
        cluster.pass(after);
        assert_eq!(cluster.signal(), orders, "after {after} ms");
    }
}

#[test]
fn a_second_signal_forces_and_the_end_is_forced() {
    let mut cluster = Cluster::of(2);
    cluster.signal();
    cluster.pass(1000);
    cluster.exits(2);
    assert_eq!(cluster.signal(), ["kill 1"]);
    assert!(cluster.signal().is_empty(), "killed once");
    assert_eq!(cluster.exits(1), ["finish Forced"]);
}

#[test]
fn a_request_does_not_escalate() {
    let mut cluster = Cluster::of(1);
    assert_eq!(cluster.ask_shutdown(0), ["close", "tell+signal 1", "0 accepted"]);
    cluster.pass(1000);
    assert_eq!(cluster.ask_shutdown(1), ["1 refused"]);
    assert!(cluster.signal().is_empty(), "the first signal");
    cluster.pass(1000);
    assert_eq!(cluster.signal(), ["kill 1"]);
}

#[test]
fn force_tells_and_kills_at_once() {
    let mut cluster = Cluster::of(1);
    assert_eq!(cluster.force(0), ["close", "tell+signal 1", "0 accepted", "kill 1"]);
    assert_eq!(cluster.exits(1), ["finish Forced"]);
    let mut cluster = Cluster::of(1);
    cluster.ask_shutdown(0);
    assert_eq!(cluster.force(1), ["1 accepted", "kill 1"]);
    assert_eq!(cluster.exits(1), ["finish Forced"]);
}

#[test]
fn a_restart_is_refused_during_a_shutdown_and_everything_after_the_end() {
    let mut cluster = Cluster::of(1);
    cluster.signal();
    assert_eq!(cluster.restart(0), ["0 refused"]);
    cluster.exits(1);
    assert_eq!(cluster.restart(1), ["1 refused"]);
    assert_eq!(cluster.ask_shutdown(2), ["2 refused"]);
    assert_eq!(cluster.force(3), ["3 refused"]);
    assert!(cluster.signal().is_empty());
    assert!(cluster.tell(Event::TimePassed).is_empty());
}

#[test]
fn an_empty_cluster_ends_at_once() {
    let mut cluster = Cluster::ready(Policy { max_fork_count: 5, ..policy(1) });
    cluster.exits(1);
    cluster.exits(2);
    assert_eq!(cluster.signal(), ["close", "finish Graceful"]);
    let mut cluster = Cluster::unstarted(policy(1));
    assert_eq!(cluster.signal(), ["close", "finish Graceful"]);
}

/// The time for filling the budget again does not wake the loop of a cluster that shuts down.
#[test]
fn a_shutdown_with_some_budget_spent_waits_in_peace() {
    let mut cluster = Cluster::ready(Policy { stable_after: super::harness::ms(500), ..policy(1) });
    cluster.exits(1);
    cluster.says_ready(2);
    cluster.signal();
    assert_eq!(cluster.wait(), Some(10_000));
    assert_eq!(cluster.pass(10_000), ["kill 2"]);
}

#[test]
fn a_worker_that_was_being_killed_is_not_told() {
    let ready = crate::config::Ready::Notify;
    let mut cluster = Cluster::boot(Policy { ready, ready_timeout: super::harness::ms(500), ..policy(1) });
    assert_eq!(cluster.pass(500), ["kill 1"]);
    assert_eq!(cluster.signal(), ["close"]);
    assert_eq!(cluster.exits(1), ["finish Graceful"]);
}

#[test]
fn logs_are_reopened_at_any_time_until_the_end() {
    let mut cluster = Cluster::of(1);
    assert_eq!(cluster.reopen(1), ["reopen", "1 accepted"]);
    cluster.signal();
    assert_eq!(cluster.reopen(2), ["reopen", "2 accepted"]);
    cluster.exits(1);
    assert_eq!(cluster.reopen(3), ["3 refused"]);
}
