//! The planned replacement of single workers: why, in which order, and what may not be disturbed by it.

use super::harness::{Cluster, Spawning, ms, policy};
use crate::supervisor::notice::Recycle;
use crate::supervisor::{
    Cause, Event, FailureKind, LastExit, Notice, Order, Policy, Remedy, RestartState, Ticket, WorkerId,
};

fn asks(cluster: &mut Cluster, worker: u64) -> Vec<String> {
    cluster.tell(Event::SaidRestartMe { worker: WorkerId(worker) })
}

fn ordered(cluster: &mut Cluster, worker: u64) -> Vec<String> {
    let order = Order::Recycle(WorkerId(worker));
    cluster.tell(Event::Ordered { order, ticket: Some(Ticket(0)) })
}

fn last_exit(cluster: &Cluster, slot: usize) -> LastExit {
    let view = cluster.status();
    view.workers.iter().find(|row| row.slot == slot).and_then(|row| row.last_exit.clone()).expect("one")
}

/// A ready cluster whose workers have lived for longer than `minUptime`.
fn grown(policy: Policy) -> Cluster {
    let mut cluster = Cluster::ready(policy);
    cluster.pass(2000);
    cluster
}

#[test]
fn the_replacement_comes_first_and_costs_nothing() {
    let mut cluster = grown(policy(2));
    assert_eq!(asks(&mut cluster, 2), ["spawn 3 in 1 of 1"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1", "1: 3 starting of 1"]);
    assert_eq!(cluster.says_ready(3), ["tell+signal 2"], "there is no canary: the program is known");
    assert!(cluster.exits(2).is_empty());
    let view = cluster.status();
    assert_eq!((view.crashes, view.budget_left, view.planned), (0, 100, 1));
    let exit = last_exit(&cluster, 1);
    assert_eq!((exit.cause, exit.reason.as_deref()), (Cause::Stopped, Some("recycled: it asked for it")));
    assert!(view.restart.is_none());
}

#[test]
fn one_at_a_time() {
    let mut cluster = grown(policy(3));
    assert_eq!(asks(&mut cluster, 1), ["spawn 4 in 0 of 1"]);
    assert!(asks(&mut cluster, 3).is_empty());
    assert!(asks(&mut cluster, 2).is_empty());
    assert!(asks(&mut cluster, 2).is_empty(), "asked twice is asked once");
    assert_eq!(cluster.says_ready(4), ["tell+signal 1", "spawn 5 in 1 of 1"]);
    assert_eq!(cluster.says_ready(5), ["tell+signal 2", "spawn 6 in 2 of 1"]);
    assert_eq!(cluster.says_ready(6), ["tell+signal 3"]);
    assert_eq!(cluster.wait(), Some(10_000), "nothing but the disconnect time-out is left");
}

#[test]
fn age_counts_from_the_start_and_is_spread() {
    let mut cluster = Cluster::ready(Policy { max_lifetime: Some(ms(100_000)), ..policy(3) });
    assert!(cluster.pass(89_999).is_empty());
    let (mut next, mut due) = (4, [3, 1, 2].into_iter());
    let mut began = Vec::new();
    for at in 90_000..=100_001 {
        for order in cluster.pass(1) {
            if order.starts_with("spawn") {
                began.push(at);
                cluster.says_ready(next);
                cluster.exits(due.next().expect("three"));
                next += 1;
            }
        }
    }
    began.dedup();
    assert_eq!(began.len(), 3, "each by itself: {began:?}");
    assert_eq!(cluster.status().planned, 3);
    assert!(cluster.pass(79_000).is_empty(), "the new ones are young");
    let reason = last_exit(&cluster, 0).reason.expect("a reason");
    assert!(reason.starts_with("recycled: it has lived for 9") && reason.ends_with("maxLifetime is 100000"));
}

#[test]
fn memory_counts_above_the_limit_and_tells_its_figure() {
    let mut cluster = grown(Policy { max_memory: Some(1000), ..policy(1) });
    let sample = |bytes| Event::MemorySampled { worker: WorkerId(1), bytes };
    assert!(cluster.tell(sample(1000)).is_empty());
    assert_eq!(cluster.tell(sample(1001)), ["spawn 2 in 0 of 1"]);
    assert!(cluster.tell(sample(5000)).is_empty());
    cluster.says_ready(2);
    cluster.exits(1);
    let reason = last_exit(&cluster, 0).reason;
    assert_eq!(reason.as_deref(), Some("recycled: it holds 1001 bytes of memory, and maxMemory is 1000"));
    let mut cluster = grown(policy(1));
    assert!(cluster.tell(sample(u64::MAX)).is_empty(), "no limit is set");
}

#[test]
fn a_worker_that_is_worn_as_soon_as_it_starts_lives_for_min_uptime_all_the_same() {
    let mut cluster = Cluster::ready(policy(1));
    assert!(asks(&mut cluster, 1).is_empty());
    assert!(cluster.pass(999).is_empty());
    assert_eq!(cluster.pass(1), ["spawn 2 in 0 of 1"]);
    let mut cluster = Cluster::ready(policy(1));
    assert_eq!(ordered(&mut cluster, 1), ["0 accepted", "spawn 2 in 0 of 1"], "an order is an order");
}

#[test]
fn a_booting_worker_is_replaced_once_it_is_ready() {
    let mut cluster = Cluster::boot(policy(1));
    assert_eq!(ordered(&mut cluster, 1), ["0 accepted"]);
    assert_eq!(cluster.says_ready(1), ["spawn 2 in 0 of 1"]);
}

#[test]
fn an_order_for_nobody_is_answered_so() {
    let mut cluster = Cluster::of(1);
    assert_eq!(ordered(&mut cluster, 7), ["0 unknown"]);
    cluster.signal();
    assert_eq!(ordered(&mut cluster, 1), ["0 refused"]);
}

#[test]
fn a_replacement_that_fails_is_no_crash_and_is_tried_again_later() {
    let mut cluster = grown(policy(2));
    asks(&mut cluster, 1);
    assert!(cluster.exits(3).is_empty());
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "1: 2 ready of 1"], "the old one stays");
    assert_eq!(asks(&mut cluster, 2), ["spawn 4 in 1 of 1"], "others need not wait for it");
    assert!(cluster.pass(5000).is_empty(), "one at a time");
    assert_eq!(cluster.says_ready(4), ["tell+signal 2", "spawn 5 in 0 of 1"]);
    cluster.exits(5);
    assert!(cluster.pass(99).is_empty());
    assert_eq!(cluster.pass(1), ["spawn 6 in 0 of 1"]);
    cluster.exits(6);
    assert!(cluster.pass(199).is_empty());
    assert_eq!(cluster.pass(1), ["spawn 7 in 0 of 1"], "the delays double");
    assert_eq!(cluster.says_ready(7), ["tell+signal 1"]);
    let view = cluster.status();
    assert_eq!((view.crashes, view.budget_left), (0, 100));
    let failed = |notice: &&Notice| matches!(notice, Notice::Recycle(Recycle::Fails { .. }));
    let told = cluster.notices.iter().find(failed).expect("told").to_string();
    let line = "the worker of slot 0 stays for now, its replacement failed: worker 3 died before it was ready: \
                exit status 1; next try in 100 ms";
    assert_eq!(told, line);
}

#[test]
fn one_that_cannot_be_spawned_or_is_never_ready_fails_as_well() {
    let mut cluster = grown(Policy { ready_timeout: ms(500), ..policy(1) });
    cluster.spawning = Spawning::Fails(FailureKind::Lasting);
    assert_eq!(asks(&mut cluster, 1), ["spawn 2 in 0 of 1"]);
    cluster.spawning = Spawning::Works;
    assert_eq!(cluster.pass(100), ["spawn 3 in 0 of 1"]);
    assert_eq!(cluster.pass(500), ["kill 3"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "0: 3 disconnecting of 1"]);
    assert_eq!(cluster.pass(200), ["spawn 4 in 0 of 1"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn a_restart_drops_a_replacement_and_makes_the_rest_wait() {
    let mut cluster = grown(policy(2));
    asks(&mut cluster, 1);
    asks(&mut cluster, 2);
    assert_eq!(cluster.restart(0), ["0 accepted", "tell 3", "spawn 4 in 0 of 2"]);
    cluster.says_ready(4);
    assert_eq!(cluster.pass(1000), ["signal 3", "tell+signal 1", "spawn 5 in 1 of 2"]);
    assert_eq!(cluster.says_ready(5), ["tell+signal 2", "release before 2", "0 completed"]);
    cluster.exits(1);
    cluster.exits(2);
    cluster.exits(3);
    assert_eq!(cluster.wait(), None, "the restart has replaced whoever was worn");
    assert_eq!(last_exit(&cluster, 1).reason, None);
}

#[test]
fn after_an_aborted_restart_it_goes_on() {
    let mut cluster = grown(policy(1));
    cluster.restart(0);
    assert!(asks(&mut cluster, 1).is_empty());
    let orders = cluster.exits(2);
    assert_eq!(orders.last().map(String::as_str), Some("spawn 3 in 0 of 1"), "{orders:?}");
    assert_eq!(cluster.status().restart.unwrap().state, RestartState::Aborted);
    assert_eq!(cluster.says_ready(3), ["tell+signal 1"]);
}

#[test]
fn an_old_worker_that_crashes_meanwhile_is_a_crash() {
    let mut cluster = grown(policy(1));
    asks(&mut cluster, 1);
    assert_eq!(cluster.exits(1), ["spawn 3 in 0 of 1"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
    assert_eq!(cluster.says_ready(2), ["tell 3"], "whoever is ready first serves");
    assert_eq!(cluster.rows(), ["0: 2 ready of 1", "0: 3 disconnecting of 1"]);
    let mut cluster = grown(policy(1));
    asks(&mut cluster, 1);
    cluster.exits(2);
    assert_eq!(cluster.exits(1), ["spawn 3 in 0 of 1"]);
    cluster.says_ready(3);
    assert!(cluster.pass(50_000).is_empty(), "nobody is left to be replaced");
}

#[test]
fn scaling_and_shutdown_take_a_replacement_along() {
    let mut cluster = grown(policy(2));
    asks(&mut cluster, 2);
    assert_eq!(cluster.scale_to(1), ["tell+signal 2", "tell 3"]);
    let mut cluster = grown(policy(1));
    asks(&mut cluster, 1);
    assert_eq!(cluster.signal(), ["close", "tell 2", "tell+signal 1"]);
    cluster.exits(1);
    assert_eq!(cluster.exits(2), ["finish Graceful"]);
}

#[test]
fn it_is_told_with_its_reason() {
    let mut cluster = grown(policy(1));
    cluster.notices.clear();
    ordered(&mut cluster, 1);
    assert_eq!(cluster.notices[0].to_string(), "worker 1 (slot 0) is being replaced: it was ordered");
}

#[test]
fn workers_with_a_dead_socket_are_replaced_and_those_with_a_mended_one_are_not() {
    let mut cluster = Cluster::of(2);
    cluster.pass(1000);
    let shut_down = |remedy| Event::ListenerShutDown { listener: "http".into(), remedy };
    assert!(cluster.tell(shut_down(Remedy::SameSocket)).is_empty());
    assert!(cluster.tell(shut_down(Remedy::None("in use".into()))).is_empty());
    assert_eq!(cluster.tell(shut_down(Remedy::NewSocket)), ["spawn 3 in 0 of 1"]);
    assert_eq!(cluster.says_ready(3), ["tell+signal 1", "spawn 4 in 1 of 1"]);
    assert!(cluster.tell(shut_down(Remedy::SameSocket)).is_empty());
    let notices: Vec<String> = cluster.notices.iter().map(ToString::to_string).collect();
    let line = "listener http: a worker has shut it down for all (shutdown(2)), worker 1 on its way out?; it listens again";
    assert!(notices.iter().any(|notice| notice == line), "{notices:?}");
    cluster.exits(1);
    assert_eq!(cluster.says_ready(4), ["tell+signal 2"]);
}
