//! Callers who give an order and go: the master keeps nothing of them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::master::idle_settings;
use crate::harness::{Master, Scene, http, proc, sample_or_full};

/// What the master may grow by: the pages of a heap that breathes, and far less than a few hundred bytes an order.
const SLACK: u64 = 1024 * 1024;

/// The orders that end with a word, those that change nothing, and those that are merged with one which waits.
#[test]
fn orders_that_are_taken_are_not_kept() {
    let scene = Scene::new("tickets");
    let mut settings = idle_settings();
    settings["canary"] = json!(600_000);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    master.ask("/restart");
    master.wait_status("the trial runs", |status| status["restart"]["state"] == "running");
    let order = |path: &str| assert_eq!(http::over_unix(master.api(), "GET", path, "").unwrap().body, "OK");
    let orders = |count: usize| {
        for _ in 0..count {
            order("/scale?worker=1");
            order("/restart");
        }
    };
    orders(300);
    let before = proc::resident(master.pid());
    orders(sample_or_full(3000, 10_000));
    // Those who wait and leave: their time-out is not theirs any more.
    let begun = Instant::now();
    assert_eq!(master.ask("/restart?wait=20ms").status, 202);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let grown = proc::resident(master.pid()).saturating_sub(before);
    assert!(grown <= SLACK, "grown by {grown} bytes");
    master.stop(&scene);
}
