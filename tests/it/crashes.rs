//! SIGKILL to workers and to the master, again and again, under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::load::{Connections, Load};
use crate::harness::master::{role_settings, rows};
use crate::harness::{Master, Scene, eventually, proc, record, sample_or_full, sys, try_get, wait_until};

const WORKERS: usize = 4;

/// The id and pid of a ready worker that is not among the dead; `choice` picks one.
fn victim(status: &Value, dead: &BTreeSet<u64>, choice: usize) -> Option<(u64, u32)> {
    let rows = rows(status);
    let alive: Vec<&Value> = rows
        .iter()
        .filter(|row| row["state"] == "ready" && !dead.contains(&row["id"].as_u64().unwrap()))
        .collect();
    let row = alive.get(choice % alive.len().max(1))?;
    Some((row["id"].as_u64()?, u32::try_from(row["pid"].as_u64()?).ok()?))
}

/// Numbers without a pattern, the same in each run.
fn shuffled(seed: usize) -> usize {
    seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33
}

#[test]
fn each_killed_worker_is_counted_once_and_replaced() {
    killed_again_and_again("kill-workers", &json!(false));
}

#[test]
fn with_a_socket_a_slot_too() {
    killed_again_and_again("kill-workers-reuseport", &json!(true));
}

fn killed_again_and_again(name: &str, reuse_port: &Value) {
    let scene = Scene::new(name);
    let mut settings = role_settings("plain");
    settings["listen"]["reusePort"] = reuse_port.clone();
    settings["minUptime"] = json!(0);
    settings["maxForkCount"] = json!(1_000_000);
    let master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let descriptors = proc::descriptors(master.pid());
    let load = Load::begin(&master.address("http"), Connections::New, 3);
    let kills = sample_or_full(40, 200);
    let mut dead = BTreeSet::new();
    for round in 0..kills {
        let (id, pid) = eventually("a worker to kill", || victim(&master.status(), &dead, shuffled(round)));
        sys::kill(pid, libc::SIGKILL);
        dead.insert(id);
        // Now and then two at once, now and then in the middle of a quiet moment.
        std::thread::park_timeout(Duration::from_millis((shuffled(round) % 16) as u64));
    }
    master.wait_status("each crash counted", |status| status["forks"]["crashes"] == kills);
    master.wait_ready(WORKERS);
    let ledger = load.end();
    record(name, format_args!("{kills} kills, {ledger}"));
    assert!(ledger.failed.is_empty(), "{ledger}");
    assert!(ledger.cut.len() <= kills, "a worker that serves one connection at a time loses one: {ledger}");
    let status = master.status();
    assert_eq!(status["forks"]["crashes"], kills, "{}", master.log_text());
    assert_eq!(status["forks"]["planned"], 0);
    let ids: BTreeSet<u64> = rows(&status).iter().filter_map(|row| row["id"].as_u64()).collect();
    assert!(ids.is_disjoint(&dead), "{ids:?} {dead:?}");
    assert_eq!(dead.len(), kills);
    assert_eq!(ids.last(), Some(&((WORKERS + kills) as u64)), "one new worker for each that died");
    let respawns: u64 = rows(&status).iter().filter_map(|row| row["respawns"].as_u64()).sum();
    assert_eq!(respawns, kills as u64);
    wait_until("descriptors as before", || proc::descriptors(master.pid()) <= descriptors);
    master.assert_no_zombies();
    master.stop(&scene);
}

#[test]
fn all_workers_killed_at_once_come_back_and_clients_wait_for_them() {
    let scene = Scene::new("kill-all");
    let mut settings = role_settings("plain");
    settings["minUptime"] = json!(0);
    settings["maxForkCount"] = json!(1_000_000);
    let master = Master::run(&scene, &settings);
    let load = Load::begin(&master.address("http"), Connections::New, 3);
    for round in 1..=sample_or_full(5, 100) {
        for pid in master.wait_ready(WORKERS) {
            sys::kill(pid, libc::SIGKILL);
        }
        let crashes = round * WORKERS;
        master.wait_status("four more crashes", |status| status["forks"]["crashes"] == crashes);
    }
    master.wait_ready(WORKERS);
    let ledger = load.end();
    assert!(ledger.failed.is_empty(), "{ledger}");
    master.stop(&scene);
}

/// A master on this port; it takes the pid file and the API's socket over from a dead one as well.
fn master_at(scene: &Scene, address: &str) -> Master {
    let mut settings = role_settings("threads");
    settings["listen"]["address"] = json!(address);
    settings["pid"] = json!(scene.path("proteus.pid"));
    Master::run(scene, &settings)
}

#[test]
fn no_worker_outlives_a_killed_master_and_the_next_one_starts() {
    let scene = Scene::new("kill-master");
    let mut address = "127.0.0.1:0".to_owned();
    let mut slowest = Duration::ZERO;
    let rounds = sample_or_full(8, 200);
    for _ in 0..rounds {
        let mut master = master_at(&scene, &address);
        let workers = master.wait_ready(WORKERS);
        address = master.address("http");
        try_get(&address, "/").expect("an answer");
        master.signal(libc::SIGKILL);
        let killed = Instant::now();
        master.wait_exit();
        wait_until("the workers are dead", || !workers.iter().any(|pid| proc::is_alive(*pid)));
        slowest = slowest.max(killed.elapsed());
        scene.assert_nothing_left();
    }
    record("kill-master", format_args!("{rounds} kills, the slowest worker gone after {slowest:.1?}"));
    let master = master_at(&scene, &address);
    master.wait_ready(WORKERS);
    master.stop(&scene);
}

#[test]
fn a_master_started_the_moment_another_is_dead_has_its_port() {
    let scene = Scene::new("kill-master-at-once");
    let mut master = master_at(&scene, "127.0.0.1:0");
    master.wait_ready(WORKERS);
    let address = master.address("http");
    for _ in 0..sample_or_full(8, 200) {
        master.signal(libc::SIGKILL);
        master.wait_exit();
        // Its workers are dying, and hold the listener for a moment more.
        master = master_at(&scene, &address);
        master.wait_ready(WORKERS);
    }
    master.stop(&scene);
}
