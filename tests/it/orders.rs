//! Orders at any moment: many of them, during one another, with workers that do not listen.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::load::{Client, Connections, Load};
use crate::harness::master::{role_settings, rows};
use crate::harness::watch::Watch;
use crate::harness::{Master, Scene, record, sample_or_full};

const WORKERS: usize = 4;

/// Older generations that drain while the next restart runs: the one that it replaces, and one before.
const GENERATIONS_AT_ONCE: usize = 3;

#[test]
fn a_hundred_restarts_a_second_for_two_seconds() {
    let scene = Scene::new("usr2-storm");
    let mut settings = role_settings("threads");
    settings["canary"] = json!(5);
    let master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let load = Load::begin(&master.address("http"), Connections::New, 2);
    let watch = Watch::begin(&master);
    let began = Instant::now();
    for number in 1..=200 {
        master.signal(libc::SIGUSR2);
        let next = began + Duration::from_millis(10) * number;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let (seen, ledger) = (watch.end(), load.end());
    ledger.assert_lossless();
    assert!(seen.fewest_ready >= WORKERS, "{}", seen.leanest);
    assert!(seen.most_generations <= GENERATIONS_AT_ONCE, "{seen:?}");
    let status = master.wait_status("the last restart is over", |status| {
        status["master"]["state"] == "running" && status["restart"]["state"] == "completed"
    });
    let restarts = status["restart"]["id"].as_u64().unwrap();
    assert!((2..=200).contains(&restarts), "{restarts}");
    assert_eq!(status["master"]["generation"], restarts + 1, "each of them completed");
    master.wait_ready(WORKERS);
    record("usr2-storm", format_args!("200 orders, {restarts} restarts, {ledger}"));
    master.stop(&scene);
}

#[test]
fn restarts_asked_for_during_a_restart_are_one() {
    let scene = Scene::new("remembered");
    let gate = scene.write("gate", "");
    let mut settings = role_settings(&format!("gated:{}", gate.display()));
    settings["canary"] = json!(5);
    let master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    std::fs::remove_file(&gate).unwrap();
    master.signal(libc::SIGUSR2);
    master.wait_status("the canary starts", |status| rows(status).len() == WORKERS + 1);
    for _ in 0..10 {
        assert_eq!(master.ask("/restart").body, "OK");
    }
    let status = master.status();
    assert_eq!((&status["restart"]["id"], &status["restart"]["state"]), (&json!(1), &json!("running")));
    assert_eq!(rows(&status).len(), WORKERS + 1);
    std::fs::write(&gate, "").unwrap();
    master.wait_status("the second one is over", |status| {
        status["restart"]["id"] == 2 && status["restart"]["state"] == "completed"
    });
    master.wait_ready(WORKERS);
    let status = master.status();
    assert_eq!(status["restart"]["id"], 2);
    assert_eq!(status["forks"]["planned"], 2 * WORKERS);
    assert!(rows(&status).iter().all(|row| row["generation"] == 3), "{status}");
    master.stop(&scene);
}

#[test]
fn sigterm_at_any_moment_of_a_restart() {
    terminated_at_each_moment("sigterm", role_settings);
}

/// The third replacement fails, and the two before it are rolled back.
#[test]
fn sigterm_at_any_moment_of_a_restart_that_is_rolled_back() {
    terminated_at_each_moment("sigterm-rollback", |role| {
        let mut settings = role_settings(role);
        let third_fails = r#"[ "$PROTEUS_GENERATION:$PROTEUS_SLOT" = 2:2 ] && exit 7; exec "$0" "$@""#;
        let mut args = vec![json!("-c"), json!(third_fails), settings["exec"].clone()];
        args.extend(settings["args"].as_array().cloned().unwrap_or_default());
        settings["exec"] = json!("/bin/sh");
        settings["args"] = json!(args);
        settings
    });
}

fn terminated_at_each_moment(name: &str, settings: fn(&str) -> Value) {
    let step = if sample_or_full(0, 1) == 0 { 12 } else { 1 };
    let last = sample_or_full(120, 500);
    for instant in (0..=last).step_by(step) {
        terminated_after(name, settings("plain"), Duration::from_millis(instant as u64));
    }
    record(name, format_args!("at each {step} ms of a restart up to {last} ms: status 0, nothing left"));
}

/// A restart, and so much later SIGTERM: it wins.
fn terminated_after(name: &str, mut settings: Value, time: Duration) {
    let scene = Scene::new(name);
    settings["canary"] = json!(sample_or_full(20, 200));
    let mut master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let began = Instant::now();
    master.signal(libc::SIGUSR2);
    std::thread::park_timeout(time.saturating_sub(began.elapsed()));
    master.signal(libc::SIGTERM);
    let status = master.wait_exit();
    assert_eq!(status.code(), Some(0), "after {time:?}: {}", master.log_text());
    scene.assert_nothing_left();
    master.wait_log("shutting down");
    let log = master.log_text();
    let (_, after) = log.split_once("shutting down").expect("the shutdown is in the log");
    // One that was on its way still begins, and is told to go.
    let late = after.matches("started as pid").count();
    assert!(late <= 1, "after {time:?}: spawned during the shutdown: {log}");
}

#[test]
fn workers_that_do_not_listen_do_not_pile_up() {
    let scene = Scene::new("deaf");
    let mut settings = role_settings("deaf");
    settings["canary"] = json!(5);
    settings["disconnectTimeout"] = json!(300);
    let master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let watch = Watch::begin(&master);
    let restarts = sample_or_full(6, 50);
    for id in 1..=restarts {
        master.signal(libc::SIGUSR2);
        master.wait_status(&format!("restart {id} completed"), |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
    }
    let seen = watch.end();
    record("deaf", format_args!("{restarts} restarts, {} workers at most", seen.most_rows));
    assert!(seen.most_generations <= GENERATIONS_AT_ONCE, "{seen:?}");
    assert!(seen.most_rows <= GENERATIONS_AT_ONCE * WORKERS, "{seen:?}");
    assert!(seen.fewest_ready >= WORKERS, "{}", seen.leanest);
    master.wait_ready(WORKERS);
    let status = master.status();
    assert_eq!(status["forks"]["crashes"], 0);
    let causes: Vec<_> = rows(&status).iter().map(|row| row["lastExit"]["cause"].clone()).collect();
    assert_eq!(causes, ["killed-at-timeout"; WORKERS]);
    master.stop(&scene);
}

#[test]
fn idle_kept_connections_do_not_hold_a_stop() {
    let scene = Scene::new("idle-kept");
    let mut settings = role_settings("threads");
    settings["disconnectTimeout"] = json!(500);
    let mut master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let address = master.address("http");
    let mut clients: Vec<_> = (0..100).map(|_| Client::new(&address, Connections::KeepAlive)).collect();
    for client in &mut clients {
        client.request();
        client.ledger.assert_lossless();
    }
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    // Each worker waits for its connections, which say nothing; the timeout ends it.
    let log = master.log_text();
    assert_eq!(log.matches("has not left within 500 ms").count(), WORKERS, "{log}");
    scene.assert_nothing_left();
}
