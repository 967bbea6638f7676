//! Crash replacement: causes, backoff, the fork budget, spawn failures, giving up.

use super::harness::{Cluster, Spawning, ms, policy};
use crate::supervisor::{Cause, Event, ExitStatus, FailureKind, Policy, WorkerId, WorkerState, WorkerView};

/// Lets the worker in slot 0 end at once, again and again: the delays before each replacement.
fn delays(cluster: &mut Cluster, first: u64, times: usize) -> Vec<u128> {
    let mut delays = Vec::new();
    for worker in (first..).take(times) {
        let orders = cluster.exits(worker);
        let wait = if orders.is_empty() { cluster.wait().expect("it comes back") } else { 0 };
        delays.push(wait);
        cluster.pass(u64::try_from(wait).unwrap());
    }
    delays
}

#[test]
fn the_cause_of_an_exit_depends_on_how_far_it_came() {
    for (says_ready, lives, cause) in [
        (false, 500, Cause::BootFailed),
        (true, 500, Cause::Quick),
        (true, 999, Cause::Quick),
        (true, 1000, Cause::Crashed),
    ] {
        let mut cluster = Cluster::boot(policy(1));
        if says_ready {
            cluster.says_ready(1);
        }
        cluster.pass(lives);
        assert_eq!(cluster.exits(1), ["spawn 2 in 0 of 1"], "the first replacement comes at once");
        assert_eq!(cluster.last_cause(0), Some(cause));
        assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
        assert_eq!(cluster.status().workers[0].respawns, 1);
    }
}

#[test]
fn quick_failures_back_off_up_to_the_maximum() {
    let mut cluster = Cluster::boot(policy(1));
    assert_eq!(delays(&mut cluster, 1, 9), [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
}

#[test]
fn a_crash_after_min_uptime_starts_the_series_anew() {
    let mut cluster = Cluster::boot(policy(1));
    assert_eq!(delays(&mut cluster, 1, 4), [0, 100, 200, 400]);
    cluster.says_ready(5);
    cluster.pass(1000);
    assert_eq!(delays(&mut cluster, 5, 3), [0, 100, 200]);
}

#[test]
fn a_waiting_seat_shows_its_last_worker() {
    let mut cluster = Cluster::of(1);
    cluster.exits(1);
    cluster.exits(2);
    assert_eq!(cluster.rows(), ["0: 2 backoff of 1"]);
    assert_eq!(cluster.pass(100), ["spawn 3 in 0 of 1"]);
}

#[test]
fn a_clean_exit_that_nobody_asked_for_is_a_crash() {
    let mut cluster = Cluster::of(1);
    cluster.pass(2000);
    let (status, stderr) = (ExitStatus::Code(0), Vec::new());
    assert_eq!(cluster.tell(Event::Exited { worker: WorkerId(1), status, stderr }), ["spawn 2 in 0 of 1"]);
    assert_eq!(cluster.last_cause(0), Some(Cause::Crashed));
}

#[test]
fn the_last_words_of_a_worker_are_kept_with_its_end() {
    let mut cluster = Cluster::of(1);
    cluster.tell(Event::SaidFailed { worker: WorkerId(1), reason: "no database".to_owned() });
    cluster.exits(1);
    let row = &cluster.status().workers[0];
    let last = row.last_exit.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("no database"));
    assert_eq!(last.stderr, ["bye from 1"]);
}

/// The program dies at once: exactly `worker + maxForkCount` spawns, then the end.
#[test]
fn the_budget_ends_an_endless_restart() {
    for (workers, max_fork_count) in [(1, 0), (1, 3), (4, 0), (4, 2), (3, 100)] {
        let mut cluster = Cluster::boot(Policy { max_fork_count, ..policy(workers) });
        let orders = die_at_once(&mut cluster);
        assert_eq!(cluster.spawns, workers + max_fork_count as usize);
        assert_eq!(orders, ["close", "finish GaveUp"]);
    }
}

/// Every worker ends as soon as it is spawned: the last orders of the cluster.
fn die_at_once(cluster: &mut Cluster) -> Vec<String> {
    for _ in 0..100_000 {
        let starting = |row: &&WorkerView| row.state == WorkerState::Starting;
        let next = cluster.status().workers.iter().find(starting).map(|row| row.id.0);
        let orders = match next {
            Some(worker) => cluster.exits(worker),
            None => cluster.pass(100),
        };
        if orders.iter().any(|order| order.starts_with("finish")) {
            return orders;
        }
    }
    panic!("the cluster never gives up");
}

/// Two slots that die in turn, each while the other is still booting.
#[test]
fn slots_that_die_in_turn_while_they_boot_do_not_go_on_for_ever() {
    let mut cluster = Cluster::boot(Policy { max_fork_count: 1, min_uptime: ms(60_000), ..policy(2) });
    cluster.pass(4000);
    assert_eq!(cluster.exits(1), ["spawn 3 in 0 of 1"]);
    cluster.pass(4000);
    assert!(cluster.exits(2).is_empty(), "the budget is spent");
    assert!(cluster.pass(20_000).is_empty(), "nobody is ready: the seat waits for the one that boots");
    assert_eq!(cluster.exits(3), ["close", "finish GaveUp"]);
}

#[test]
fn a_seat_beyond_the_budget_is_filled_once_somebody_is_ready() {
    let mut cluster = Cluster::boot(Policy { max_fork_count: 0, ..policy(2) });
    assert!(cluster.exits(1).is_empty());
    assert!(cluster.pass(900).is_empty());
    assert!(cluster.says_ready(2).is_empty(), "not before backoff.max");
    assert_eq!(cluster.pass(4100), ["spawn 3 in 0 of 1"]);
}

#[test]
fn one_flapping_slot_never_stops_healthy_ones() {
    let mut cluster = Cluster::ready(Policy { max_fork_count: 3, ..policy(2) });
    assert_eq!(delays(&mut cluster, 1, 1), [0]);
    assert_eq!(delays(&mut cluster, 3, 40)[3..], [5000; 37], "it stays at backoff.max");
    assert_eq!(cluster.budget_left(), 0);
    assert_eq!(cluster.status().crashes, 41);
    assert_eq!(cluster.rows(), ["0: 43 starting of 1", "1: 2 ready of 1"]);
}

#[test]
fn being_stable_fills_the_budget_again() {
    let mut cluster = Cluster::of(2);
    cluster.pass(2000);
    cluster.exits(1);
    cluster.says_ready(3);
    cluster.pass(59_999);
    assert_eq!(cluster.budget_left(), 99);
    cluster.pass(1);
    assert_eq!((cluster.budget_left(), cluster.status().crashes), (100, 1));
    assert_eq!(cluster.wait(), None);
}

#[test]
fn a_crash_in_between_starts_the_stable_time_anew() {
    let mut cluster = Cluster::of(1);
    cluster.exits(1);
    cluster.says_ready(2);
    cluster.pass(50_000);
    cluster.exits(2);
    cluster.says_ready(3);
    cluster.pass(59_999);
    assert_eq!(cluster.budget_left(), 98);
    cluster.pass(1);
    assert_eq!(cluster.budget_left(), 100);
}

#[test]
fn a_machine_short_of_processes_is_waited_for_without_charge() {
    let mut cluster = Cluster::unstarted(policy(1));
    cluster.spawning = Spawning::Fails(FailureKind::Passing);
    cluster.tell(Event::Started);
    assert_eq!(cluster.wait(), Some(100));
    assert_eq!(cluster.rows(), ["0: 1 backoff of 1"]);
    assert_eq!(cluster.pass(100), ["spawn 2 in 0 of 1"]);
    assert_eq!(cluster.wait(), Some(100));
    assert_eq!(cluster.pass(100), ["spawn 3 in 0 of 1"]);
    assert_eq!(cluster.wait(), Some(200));
    cluster.spawning = Spawning::Works;
    assert_eq!(cluster.pass(200), ["spawn 4 in 0 of 1"]);
    assert_eq!((cluster.budget_left(), cluster.status().crashes), (100, 0));
    assert_eq!(cluster.last_cause(0), Some(Cause::SpawnFailed));
}

#[test]
fn a_first_spawn_that_fails_for_good_means_could_not_start() {
    let mut cluster = Cluster::unstarted(policy(2));
    cluster.spawning = Spawning::Fails(FailureKind::Lasting);
    let orders = cluster.tell(Event::Started);
    let finish = "finish CouldNotStart { reason: \"exec ./server: no such file\" }";
    assert_eq!(orders, ["spawn 1 in 0 of 1", "spawn 2 in 1 of 1", "close", "tell 2", finish]);
}

#[test]
fn a_later_spawn_that_fails_for_good_is_charged_and_backs_off() {
    let mut cluster = Cluster::ready(Policy { max_fork_count: 2, ..policy(1) });
    cluster.spawning = Spawning::Fails(FailureKind::Lasting);
    assert_eq!(cluster.exits(1), ["spawn 2 in 0 of 1"]);
    assert_eq!((cluster.wait(), cluster.budget_left()), (Some(100), 0));
    assert_eq!(cluster.last_cause(0), Some(Cause::SpawnFailed));
    assert_eq!(cluster.pass(100), ["spawn 3 in 0 of 1", "close", "finish GaveUp"]);
}

#[test]
fn an_event_about_a_reaped_worker_changes_nothing() {
    let mut cluster = Cluster::of(2);
    cluster.exits(1);
    assert!(cluster.exits(1).is_empty());
    assert!(cluster.says_hello(1).is_empty() && cluster.says_ready(1).is_empty());
    assert_eq!(cluster.status().crashes, 1);
}

#[test]
fn a_worker_that_survives_its_kill_loses_its_seat() {
    let mut cluster =
        Cluster::boot(Policy { ready_timeout: ms(500), ready: crate::config::Ready::Notify, ..policy(1) });
    assert_eq!(cluster.pass(500), ["kill 1"]);
    assert_eq!(cluster.pass(5000), ["spawn 2 in 0 of 1"]);
    assert_eq!(cluster.rows()[..2], ["0: 2 starting of 1", "0: 1 disconnecting of 1"]);
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
    assert!(cluster.exits(1).is_empty(), "counted already");
    assert_eq!(cluster.status().crashes, 1);
}

/// A slot keeps its program: what lies at the path now is the business of restarts.
#[test]
fn a_replacement_runs_the_program_of_its_seat() {
    let mut cluster = Cluster::of(2);
    cluster.restart(0);
    assert_eq!(cluster.exits(1), ["spawn 4 in 0 of 1"]);
}
