//! How a cluster ends: gracefully, at the disconnect time-out, by force.

use serde_json::{Value, json};

use crate::harness::http::Answer;
use crate::harness::master::{role_settings, rows};
use crate::harness::{Master, Scene, proc, sys, wait_until};

/// Workers that ignore every signal that can be ignored, and have children that do.
fn stubborn(scene: &Scene, disconnect_timeout: u64) -> Master {
    let mut settings = role_settings("stubborn");
    settings["worker"] = json!(2);
    settings["pid"] = json!(scene.path("proteus.pid"));
    settings["disconnectTimeout"] = json!(disconnect_timeout);
    settings["canary"] = json!(0);
    settings["minReady"] = json!(2);
    let master = Master::run(scene, &settings);
    master.wait_ready(2);
    master
}

/// The time-out is not what ends these.
const NEVER: u64 = 600_000;

fn uptime(status: &Value) -> u64 {
    status["master"]["uptimeMs"].as_u64().expect("milliseconds")
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: body.into() }
}

#[test]
fn a_worker_that_ignores_everything_is_killed_at_the_time_out_and_the_status_is_0() {
    let scene = Scene::new("time-out");
    let mut master = stubborn(&scene, 200);
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    master.wait_log("has not left within 200 ms; killing its process group");
    scene.assert_nothing_left();
    assert!(!scene.path("proteus.pid").exists());
}

#[test]
fn the_old_worker_of_a_restart_is_killed_at_the_time_out_too() {
    let scene = Scene::new("time-out-restart");
    let master = stubborn(&scene, 200);
    let first = master.wait_ready(2);
    master.signal(libc::SIGUSR2);
    let status = master.wait_status("restarted, and the old ones gone", |status| {
        status["restart"]["state"] == "completed" && rows(status).len() == 2
    });
    for row in rows(&status) {
        assert_eq!(row["lastExit"]["cause"], "killed-at-timeout", "{status}");
        assert_eq!(row["lastExit"]["signal"], 9, "{status}");
    }
    assert!(first.iter().all(|pid| !proc::is_alive(*pid)));
    assert_eq!(status["forks"]["crashes"], 0);
    master.signal(libc::SIGTERM);
    master.ends_with(&scene, 0);
}

#[test]
fn sigquit_forces() {
    let scene = Scene::new("quit");
    let master = stubborn(&scene, NEVER);
    master.signal(libc::SIGQUIT);
    master.ends_with(&scene, 1);
    assert!(!scene.path("proteus.pid").exists());
}

#[test]
fn force_shutdown_over_http() {
    let scene = Scene::new("force-http");
    let master = stubborn(&scene, NEVER);
    assert_eq!(master.ask("/force_shutdown"), answer(200, "OK"));
    master.ends_with(&scene, 1);
    assert!(!scene.path("proteus.pid").exists());
}

#[test]
fn two_signals_at_once_are_one_order_and_a_later_one_forces() {
    let scene = Scene::new("second-signal");
    let master = stubborn(&scene, NEVER);
    // Both are waiting when it goes on, so that no slow machine comes between them.
    master.signal(libc::SIGSTOP);
    master.signal(libc::SIGINT);
    master.signal(libc::SIGTERM);
    master.signal(libc::SIGCONT);
    master.wait_log("SIGINT received");
    master.wait_log("SIGTERM received");
    let status = master.wait_status("shutting down", |status| status["master"]["state"] == "shutting-down");
    assert!(!master.has_logged("forced"), "{}", master.log_text());
    let later = uptime(&status) + 400;
    let status = master.wait_status("300 ms and more have passed", |status| uptime(status) > later);
    assert_eq!(rows(&status).len(), 2, "nobody was killed: {status}");
    master.signal(libc::SIGINT);
    master.ends_with(&scene, 1);
}

#[test]
fn a_shutdown_over_http_then_one_signal_does_not_force() {
    let scene = Scene::new("http-then-signal");
    let master = stubborn(&scene, NEVER);
    assert_eq!(master.ask("/shutdown"), answer(200, "OK"));
    master.signal(libc::SIGTERM);
    master.wait_log("SIGTERM received");
    let status = master.wait_status("still there", |_| true);
    assert_eq!(rows(&status).len(), 2, "{}", master.log_text());
    master.signal(libc::SIGQUIT);
    master.ends_with(&scene, 1);
}

#[test]
fn orders_during_a_shutdown() {
    let scene = Scene::new("409");
    let master = stubborn(&scene, NEVER);
    assert_eq!(master.ask("/ready"), answer(200, "OK"));
    assert_eq!(master.ask("/shutdown"), answer(200, "OK"));
    let late = ["/restart", "/shutdown"];
    for order in late {
        assert_eq!(master.ask(order).status, 409, "{order}");
    }
    assert_eq!(master.ask("/ready").status, 503);
    assert_eq!(master.ask("/health"), answer(200, "OK"));
    let status = master.status();
    assert_eq!(status["master"]["state"], "shutting-down");
    assert_eq!(status["orders"]["refused"], late.len());
    assert!(rows(&status).iter().all(|row| row["state"] == "disconnecting"), "{status}");
    assert_eq!(master.ask("/force_shutdown"), answer(200, "OK"));
    master.ends_with(&scene, 1);
}

#[test]
fn a_shutdown_wins_over_a_restart() {
    let scene = Scene::new("shutdown-wins");
    let mut settings = role_settings("service");
    settings["canary"] = json!(60_000);
    let master = Master::run(&scene, &settings);
    master.wait_ready(4);
    assert_eq!(master.ask("/restart"), answer(200, "OK"));
    let during = |status: &Value| {
        let replacement = rows(status).iter().any(|row| row["generation"] == 2 && row["state"] == "ready");
        replacement && status["master"]["state"] == "restarting"
    };
    master.wait_status("the canary is on trial", during);
    assert_eq!(master.ask("/restart"), answer(200, "OK")); // remembered
    master.signal(libc::SIGTERM);
    master.ends_with(&scene, 0);
}

#[test]
fn a_worker_that_is_stopped_leaves_all_the_same() {
    let scene = Scene::new("stopped");
    let mut settings = role_settings("foreign");
    settings["disconnectTimeout"] = json!(NEVER);
    let master = Master::run(&scene, &settings);
    for pid in master.wait_ready(4) {
        sys::kill(pid, libc::SIGSTOP);
        wait_until("it is stopped", || proc::state(pid) == Some('T'));
    }
    master.signal(libc::SIGINT);
    master.ends_with(&scene, 0);
}
