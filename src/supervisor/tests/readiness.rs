//! When a worker counts as ready: `auto`, `notify`, `alive`.

use super::harness::{Cluster, Spawning, ms, policy};
use crate::config::Ready;
use crate::supervisor::{Cause, Event, FailureKind, Moment, Notice, Policy, SpawnFailure, WorkerId};

fn one(ready: Ready) -> Policy {
    Policy { ready, ..policy(1) }
}

#[test]
fn the_first_workers_are_spawned_in_their_slots() {
    let mut cluster = Cluster::unstarted(policy(3));
    let orders = cluster.tell(Event::Started);
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

/// Nobody of the release that serves has ever said ready, but the one that is refused has.
#[test]
fn what_a_refused_release_says_is_expected_of_nobody_else() {
    let mut cluster = Cluster::boot(policy(2));
    cluster.pass(1000);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"]);
    cluster.restart(0);
    cluster.says_ready(3);
    assert_eq!(cluster.exits(3), ["0 aborted: worker 3 died soon after its start: exit status 1"]);
    assert!(cluster.says_ready(3).is_empty(), "too late");
    assert_eq!(cluster.exits(1), ["spawn 4 in 0 of 1"]);
    assert_eq!(cluster.exits(2), ["spawn 5 in 1 of 1"]);
    assert!(cluster.pass(60_000).is_empty());
    assert_eq!(cluster.rows(), ["0: 4 ready of 1", "1: 5 ready of 1"]);
}

/// It takes seats before it fails: those that take them back are as mute as those before.
#[test]
fn a_rollback_expects_no_word_that_only_the_refused_release_has_said() {
    let mut cluster = Cluster::boot(policy(3));
    cluster.pass(1000);
    cluster.restart(0);
    cluster.says_ready(4);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 5 in 1 of 2"]);
    cluster.exits(1);
    assert_eq!(cluster.exits(5), ["spawn 6 in 0 of 1"]);
    assert!(cluster.says_ready(4).is_empty(), "its seat is taken back");
    let end = cluster.pass(1000);
    assert_eq!(end, ["tell+signal 4", "0 aborted: worker 5 died before it was ready: exit status 1"]);
    cluster.exits(4);
    assert_eq!(cluster.rows(), ["0: 6 ready of 1", "1: 2 ready of 1", "2: 3 ready of 1"]);
}

/// What a release has said is expected of itself, on trial and once it serves, and of those that follow.
#[test]
fn what_a_release_says_is_expected_of_it_and_of_later_ones() {
    let mut cluster = Cluster::boot(policy(2));
    cluster.pass(1000);
    cluster.restart(0);
    cluster.says_ready(3);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "spawn 4 in 1 of 2"]);
    assert!(cluster.pass(29_999).iter().all(|order| order == "kill 1"), "worker 4 is waited for");
    cluster.says_ready(4);
    cluster.exits(1);
    cluster.exits(2);
    assert_eq!(cluster.exits(3), ["spawn 5 in 0 of 2"]);
    assert!(cluster.pass(29_999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 5"]);
}

/// A worker that was told to leave has nothing to say any more about those that came for it.
#[test]
fn what_an_older_release_says_as_it_leaves_is_expected_of_nobody() {
    let mut cluster = Cluster::boot(policy(1));
    cluster.restart(0);
    cluster.pass(2000);
    assert_eq!(cluster.rows(), ["0: 2 ready of 2", "0: 1 disconnecting of 1"]);
    cluster.says_ready(1);
    cluster.exits(1);
    assert_eq!(cluster.exits(2), ["spawn 3 in 0 of 2"]);
    cluster.pass(1000);
    assert_eq!(cluster.rows(), ["0: 3 ready of 2"]);
}

/// Its word comes while the next release is on trial, which has none.
#[test]
fn a_release_that_serves_without_a_word_needs_none() {
    let mut cluster = Cluster::boot(Policy { ready_timeout: ms(3000), ..policy(1) });
    cluster.pass(999);
    cluster.restart(0);
    cluster.pass(1500);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "0: 2 ready of 2"]);
    cluster.says_ready(1);
    cluster.pass(1000);
    assert_eq!(cluster.rows(), ["0: 2 ready of 2", "0: 1 disconnecting of 1"]);
    assert_eq!(cluster.exits(2), ["spawn 3 in 0 of 2"]);
    cluster.pass(1000);
    assert!(cluster.rows().contains(&"0: 3 ready of 2".to_owned()), "{:?}", cluster.rows());
}

/// A release on trial that has a process says nothing about the program that is to serve.
#[test]
fn a_start_that_fails_is_one_though_a_release_on_trial_has_started() {
    let mut cluster = Cluster::unstarted(policy(1));
    cluster.restart(0);
    cluster.core.handle(Moment::default(), Event::Started);
    cluster.tell(Event::Spawned { worker: WorkerId(1) });
    let failure = SpawnFailure { kind: FailureKind::Lasting, reason: "exec ./server: not found".into() };
    let orders = cluster.tell(Event::SpawnFailed { worker: WorkerId(2), failure });
    assert_eq!(orders, ["close", "tell 1", "0 aborted: shutdown"]);
    let end = cluster.exits(1);
    assert_eq!(end, [r#"finish CouldNotStart { reason: "exec ./server: not found" }"#]);
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
    assert!(cluster.tell(Event::TimePassed).is_empty());
    assert_eq!(cluster.restart(0), ["0 accepted"]);
    assert!(cluster.notices.is_empty() || !cluster.notices.contains(&Notice::AllReady { workers: 0 }));
    let orders = cluster.tell(Event::Started);
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

/// What a worker is waited for begins with its process, and not with the order for one.
#[test]
fn time_without_a_process_counts_for_nothing() {
    let mut cluster = Cluster::unstarted(one(Ready::Auto));
    cluster.spawning = Spawning::TakesTime;
    cluster.tell(Event::Started);
    cluster.pass(40_000);
    assert_eq!(cluster.rows(), ["0: 1 starting of 1"]);
    assert_eq!(cluster.wait(), None);
    cluster.tell(Event::Spawned { worker: WorkerId(1) });
    cluster.pass(999);
    assert_eq!(cluster.rows(), ["0: 1 starting of 1"]);
    cluster.pass(1);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1"]);
}

/// One that is told to go before it has begun is gone when there is no process, and that is no failure.
#[test]
fn a_shutdown_of_a_worker_without_a_process() {
    let mut cluster = Cluster::unstarted(one(Ready::Auto));
    cluster.spawning = Spawning::TakesTime;
    cluster.tell(Event::Started);
    assert_eq!(cluster.signal(), ["close", "tell 1"]);
    let failure = SpawnFailure { kind: FailureKind::Passing, reason: "too late".to_owned() };
    let orders = cluster.tell(Event::SpawnFailed { worker: WorkerId(1), failure });
    assert_eq!(orders, ["finish Graceful"]);
}
