//! When a worker counts as ready: `auto`, `notify`, `alive`.

use super::harness::{Cluster, ms, policy};
use crate::config::Ready;
use crate::supervisor::{Cause, Notice, Policy};

fn one(ready: Ready) -> Policy {
    Policy { ready, ..policy(1) }
}

#[test]
fn the_first_workers_are_spawned_in_their_slots() {
    let mut cluster = Cluster::unstarted(policy(3));
    let orders = cluster.tell(crate::supervisor::Event::Started);
    assert_eq!(orders, ["spawn 1 in 0 of 1", "spawn 2 in 1 of 1", "spawn 3 in 2 of 1"]);
    assert_eq!(cluster.rows(), ["0: 1 starting of 1", "1: 2 starting of 1", "2: 3 starting of 1"]);
}

#[test]
fn a_word_makes_ready_in_every_mode() {
    for ready in [Ready::Auto, Ready::Notify, Ready::Alive] {
        let mut cluster = Cluster::boot(one(ready));
        cluster.pass(200);
        assert!(cluster.says_ready(1).is_empty());
        assert_eq!(cluster.rows(), ["0: 1 ready of 1"], "{ready:?}");
        assert_eq!(cluster.wait(), None);
    }
}

#[test]
fn a_mute_worker_counts_after_min_uptime_unless_a_word_is_asked_for() {
    for (ready, state) in [(Ready::Auto, "ready"), (Ready::Alive, "ready"), (Ready::Notify, "starting")] {
        let mut cluster = Cluster::boot(one(ready));
        cluster.pass(999);
        assert_eq!(cluster.rows(), ["0: 1 starting of 1"]);
        cluster.pass(1);
        assert_eq!(cluster.rows(), [format!("0: 1 {state} of 1")], "{ready:?}");
    }
}

#[test]
fn hello_means_that_a_word_will_come() {
    for (ready, state) in [(Ready::Auto, "starting"), (Ready::Notify, "starting"), (Ready::Alive, "ready")] {
        let mut cluster = Cluster::boot(one(ready));
        cluster.says_hello(1);
        cluster.pass(29_999);
        assert_eq!(cluster.rows(), [format!("0: 1 {state} of 1")], "{ready:?}");
    }
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_and_replaced_when_reaped() {
    let mut cluster = Cluster::boot(one(Ready::Notify));
    assert!(cluster.pass(29_999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 1"]);
    assert_eq!(cluster.rows(), ["0: 1 disconnecting of 1"]);
    assert!(cluster.says_ready(1).is_empty(), "too late");
    assert_eq!(cluster.exits(1), ["spawn 2 in 0 of 1"]);
    assert_eq!(cluster.last_cause(0), Some(Cause::ReadyTimeout));
    assert_eq!(cluster.budget_left(), 99);
}

/// Once a worker has said ready, a mute one is no longer taken for ready.
#[test]
fn a_mute_release_is_caught_after_a_custom_of_saying_ready() {
    let mut cluster = Cluster::of(1);
    cluster.pass(5000);
    assert_eq!(cluster.restart(0), ["0 accepted", "spawn 2 in 0 of 2"]);
    assert!(cluster.pass(29_999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 2"], "the old worker stays");
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "0: 2 disconnecting of 2"]);
    assert_eq!(cluster.exits(2), ["0 aborted: worker 2 was not ready within 30000 ms"]);
}

#[test]
fn alive_asks_nobody_for_a_word_ever() {
    let mut cluster = Cluster::ready(one(Ready::Alive));
    cluster.pass(5000);
    cluster.exits(1);
    cluster.pass(1000);
    assert_eq!(cluster.rows(), ["0: 2 ready of 1"]);
}

#[test]
fn ready_twice_and_ready_of_strangers_change_nothing() {
    let mut cluster = Cluster::of(1);
    let before = cluster.notices.len();
    for worker in [1, 1, 7] {
        assert!(cluster.says_ready(worker).is_empty());
    }
    assert_eq!(cluster.notices.len(), before);
}

#[test]
fn all_ready_is_said_once() {
    let mut cluster = Cluster::of(2);
    cluster.exits(1);
    cluster.says_ready(3);
    let said = cluster.notices.iter().filter(|notice| **notice == Notice::AllReady { workers: 2 });
    assert_eq!(said.count(), 1);
}

#[test]
fn nothing_begins_before_the_start() {
    let mut cluster = Cluster::unstarted(policy(2));
    assert!(cluster.tell(crate::supervisor::Event::TimePassed).is_empty());
    assert_eq!(cluster.restart(0), ["0 accepted"]);
    assert!(cluster.notices.is_empty() || !cluster.notices.contains(&Notice::AllReady { workers: 0 }));
    let orders = cluster.tell(crate::supervisor::Event::Started);
    assert_eq!(orders, ["spawn 1 in 0 of 2", "spawn 2 in 0 of 1", "spawn 3 in 1 of 1"]);
}

#[test]
fn ready_timeouts_differ_by_their_start() {
    let mut cluster = Cluster::boot(Policy { ready_timeout: ms(500), ready: Ready::Notify, ..policy(2) });
    cluster.pass(100);
    cluster.exits(2);
    assert_eq!(cluster.pass(400), ["kill 1"]);
    assert_eq!(cluster.pass(100), ["kill 3"]);
}
