//! Sockets of one's own: a slot that goes is emptied first, and new connections go where somebody serves.

use super::harness::{Cluster, ms, policy};
use crate::supervisor::{Event, Policy, Sockets};

fn per_slot(workers: usize) -> Policy {
    Policy { sockets: Sockets::PerSlot, ..policy(workers) }
}

fn seen_empty(cluster: &mut Cluster, slot: usize) -> Vec<String> {
    cluster.tell(Event::QueueSeenEmpty { slot })
}

#[test]
fn new_connections_go_to_those_that_are_ready() {
    let mut cluster = Cluster::unstarted(per_slot(3));
    let orders = cluster.tell(Event::Started);
    assert_eq!(
        orders.last().map(String::as_str),
        Some("steer to [0, 1, 2]"),
        "nobody is; they wait anywhere"
    );
    assert_eq!(cluster.says_ready(2), ["steer to [1]"]);
    assert_eq!(cluster.says_ready(1), ["steer to [0, 1]"]);
    assert_eq!(cluster.says_ready(3), ["steer to [0, 1, 2]"]);
}

#[test]
fn a_slot_in_backoff_gets_none_until_it_is_filled() {
    let mut cluster = Cluster::ready(per_slot(2));
    cluster.pass(2000);
    assert_eq!(cluster.exits(1), ["spawn 3 in 0 of 1", "steer to [1]"]);
    assert!(cluster.exits(3).is_empty());
    assert_eq!(cluster.pass(100), ["spawn 4 in 0 of 1"]);
    assert_eq!(cluster.says_ready(4), ["steer to [0, 1]"]);
    cluster.exits(2);
    assert_eq!(cluster.exits(4).last().map(String::as_str), Some("steer to [0, 1]"), "nobody serves");
}

#[test]
fn a_restart_leaves_them_where_they_are() {
    let mut cluster = Cluster::ready(per_slot(1));
    cluster.restart(0);
    cluster.says_ready(2);
    assert_eq!(cluster.pass(1000), ["tell+signal 1", "release before 2", "0 completed"]);
}

#[test]
fn a_slot_that_goes_is_emptied_before_its_worker_is_told() {
    let mut cluster = Cluster::ready(per_slot(2));
    assert_eq!(cluster.scale_to(1), ["steer to [0]"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"]);
    assert!(seen_empty(&mut cluster, 1).is_empty(), "what is on its way comes within a moment");
    assert_eq!(cluster.pass(240), ["look at 1", "look at 1", "look at 1"]);
    assert_eq!(seen_empty(&mut cluster, 1), ["tell+signal 2"]);
    assert!(seen_empty(&mut cluster, 1).is_empty());
    assert!(cluster.pass(1000).is_empty());
    assert_eq!(cluster.exits(2), ["close slot 1"]);
}

#[test]
fn a_queue_that_never_empties_has_its_time() {
    let mut cluster = Cluster::ready(Policy { disconnect_timeout: ms(1000), ..per_slot(2) });
    cluster.scale_to(1);
    let orders = cluster.pass(1000);
    assert_eq!(orders.last().map(String::as_str), Some("tell+signal 2"));
    assert!(orders[..orders.len() - 1].iter().all(|order| order == "look at 1"), "{orders:?}");
    assert_eq!(cluster.pass(1000), ["kill 2"]);
}

#[test]
fn a_slot_that_comes_back_meanwhile_keeps_its_worker() {
    let mut cluster = Cluster::ready(per_slot(2));
    cluster.scale_to(1);
    cluster.pass(210);
    assert_eq!(cluster.scale_to(2), ["steer to [0, 1]"]);
    assert!(seen_empty(&mut cluster, 1).is_empty());
    assert!(cluster.pass(20_000).is_empty());
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"]);
}

#[test]
fn one_that_ends_while_its_slot_is_emptied_is_not_replaced() {
    let mut cluster = Cluster::ready(per_slot(2));
    cluster.scale_to(1);
    assert_eq!(cluster.exits(2), ["close slot 1"]);
    assert!(cluster.pass(20_000).is_empty());
}

#[test]
fn a_shutdown_waits_for_no_queue() {
    let mut cluster = Cluster::ready(per_slot(2));
    cluster.scale_to(1);
    assert_eq!(cluster.signal(), ["close", "tell+signal 1", "tell+signal 2"]);
    assert!(cluster.pass(1000).is_empty());
    cluster.exits(1);
    assert_eq!(cluster.exits(2), ["finish Graceful"]);
}
