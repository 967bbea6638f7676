//! More and fewer workers while the cluster runs: nothing is lost, and nothing is left of those that go.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::http::over_unix;
use crate::harness::load::{Connections, Load};
use crate::harness::master::{idle_settings, role_settings, rows};
use crate::harness::{Master, Scene, proc, record, sample_or_full, wait_until};

#[track_caller]
fn scale(master: &Master, workers: usize) {
    assert_eq!(master.ask(&format!("/scale?worker={workers}")).body, "OK");
}

/// The slots that have workers, each as often as it has.
fn slots(master: &Master) -> Vec<u64> {
    let mut slots: Vec<u64> =
        rows(&master.status()).iter().map(|row| row["slot"].as_u64().unwrap()).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn the_signals_take_one_step_each() {
    let scene = Scene::new("scale-signals");
    let mut settings = idle_settings();
    settings["worker"] = json!(2);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    master.signal(libc::SIGTTIN);
    assert!(master.wait_ready(3).is_superset(&first));
    assert_ne!(proc::state(master.pid()), Some('T'));
    master.wait_log("SIGTTIN received");
    master.wait_log("scaling from 2 to 3 workers");
    for left in [2, 1] {
        master.signal(libc::SIGTTOU);
        master.wait_ready(left);
    }
    assert_eq!(slots(&master), [0], "the highest slots go");
    master.signal(libc::SIGTTOU);
    master.wait_log("nothing to scale: there is 1 worker");
    let status = master.status();
    assert_eq!((&status["master"]["workers"], &status["forks"]["crashes"]), (&json!(1), &json!(0)));
    assert_eq!(status["forks"]["planned"], 0);
    master.stop(&scene);
}

#[test]
fn numbers_that_cannot_be_are_refused_and_change_nothing() {
    let scene = Scene::new("scale-api");
    let master = Master::run(&scene, &idle_settings());
    let pid = master.wait_one_ready();
    for query in ["?worker=0", "?worker=-1", "?worker=x", "?worker=", "", "?worker=4097", "?worker=1.5"] {
        assert_eq!(master.ask(&format!("/scale{query}")).status, 400, "{query}");
    }
    assert_eq!(master.ask("/scale?worker=2&and=more").status, 400);
    assert_eq!(master.wait_one_ready(), pid);
    let posted = over_unix(master.api(), "POST", "/scale?worker=3", "").expect("an answer");
    assert_eq!((posted.status, posted.body.as_str()), (200, "OK"));
    assert!(master.wait_ready(3).contains(&pid));
    assert_eq!(master.status()["master"]["workers"], 3);
    master.stop(&scene);
}

#[test]
fn readiness_is_that_of_the_wanted_workers() {
    let scene = Scene::new("scale-ready");
    let mut settings = idle_settings();
    settings["worker"] = json!(2);
    settings["minReady"] = json!(2);
    let master = Master::run(&scene, &settings);
    master.wait_ready(2);
    assert_eq!(master.ask("/ready").status, 200);
    scale(&master, 1);
    assert_eq!(master.ask("/ready").status, 503);
    master.wait_log("scaling from 2 to 1 worker; /ready will answer 503: minReady is 2");
    scale(&master, 2);
    master.wait_ready(2);
    assert_eq!(master.ask("/ready").status, 200);
    master.stop(&scene);
}

/// Up and down in one sweep after another, under load.
#[track_caller]
fn sweeps(name: &str, role: &str, kept_connections: usize) {
    let scene = Scene::new(name);
    let mut settings = role_settings(role);
    settings["worker"] = json!(2);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    let descriptors = proc::descriptors(master.pid());
    let address = master.address("http");
    let load = Load::begin(&address, Connections::New, 3);
    let load = load.and(&address, Connections::KeepAlive, kept_connections);
    let count = sample_or_full(6, 60);
    for _ in 0..count {
        scale(&master, 5);
        master.wait_ready(5);
        scale(&master, 1);
        master.wait_ready(1);
        scale(&master, 3);
        // No need for anybody to be ready before the next order.
        scale(&master, 2);
    }
    let now = master.wait_ready(2);
    let ledger = load.end();
    record(name, format_args!("{count} sweeps, {ledger}"));
    ledger.assert_lossless();
    assert_eq!(first.intersection(&now).count(), 1, "slot 0 was never touched");
    let status = master.status();
    assert_eq!((&status["forks"]["crashes"], &status["forks"]["planned"]), (&json!(0), &json!(0)));
    assert_eq!(rows(&status)[1]["lastExit"]["cause"], "stopped");
    wait_until("descriptors as before", || proc::descriptors(master.pid()) <= descriptors);
    master.assert_no_zombies();
    master.stop(&scene);
}

#[test]
fn nothing_is_lost_with_a_thread_a_connection() {
    sweeps("scale-threads", "threads", 3);
}

#[test]
fn nothing_is_lost_with_one_connection_at_a_time() {
    sweeps("scale-plain", "plain", 0);
}

#[test]
fn nothing_is_lost_with_workers_in_no_way_ours() {
    sweeps("scale-drains", "drains", 2);
}

#[test]
fn a_restart_rolls_those_that_come_meanwhile_and_lets_go_of_those_that_go() {
    let scene = Scene::new("scale-restart");
    let mut settings = role_settings("threads");
    settings["canary"] = json!(100);
    let master = Master::run(&scene, &settings);
    master.wait_ready(4);
    let load = Load::begin(&master.address("http"), Connections::New, 2);
    for (id, workers) in [(1, 6), (2, 2), (3, 4)] {
        master.signal(libc::SIGUSR2);
        master.wait_status("the canary runs", |status| status["restart"]["id"] == id);
        scale(&master, workers);
        let status = master.wait_status("completed", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
        assert_eq!(status["restart"]["total"], workers);
        master.wait_ready(workers);
        let generations: BTreeSet<u64> =
            rows(&master.status()).iter().map(|row| row["generation"].as_u64().unwrap()).collect();
        assert_eq!(generations, BTreeSet::from([id + 1]), "none is left of another program");
    }
    load.end().assert_lossless();
    assert_eq!(master.status()["forks"]["crashes"], 0);
    master.stop(&scene);
}

#[test]
fn an_order_during_a_shutdown_is_refused() {
    let scene = Scene::new("scale-late");
    let mut settings = role_settings("stubborn");
    settings["worker"] = json!(1);
    settings["disconnectTimeout"] = json!(60_000);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    master.signal(libc::SIGTERM);
    master.wait_status("shutting down", |status| status["master"]["state"] == "shutting-down");
    assert_eq!(master.ask("/scale?worker=2").status, 409);
    master.signal(libc::SIGTTIN);
    master.wait_status("both are counted", |status| status["orders"]["refused"] == 2);
    assert_eq!(slots(&master), [0]);
    master.signal(libc::SIGQUIT);
    master.ends_with(&scene, 1);
}
