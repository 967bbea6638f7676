//! Rolling restarts under load lose nothing, and never leave fewer workers than the settings say.

use serde_json::{Value, json};

use crate::harness::load::{Connections, Load};
use crate::harness::master::role_settings;
use crate::harness::watch::Watch;
use crate::harness::{Master, Scene, proc, record, sample_or_full, wait_until};

const WORKERS: usize = 4;

/// How the restarts are done, and to whom.
struct Roll {
    name: &'static str,
    settings: Value,
    restarts: usize,
    /// Workers that serve one connection at a time serve no more kept ones than there are workers.
    kept_connections: usize,
}

fn settings(role: &str) -> Value {
    let mut settings = role_settings(role);
    settings["worker"] = json!(WORKERS);
    settings["canary"] = json!(sample_or_full(20, 1000));
    settings
}

impl Roll {
    #[track_caller]
    fn run(self) {
        let scene = Scene::new(self.name);
        let master = Master::run(&scene, &self.settings);
        master.wait_ready(WORKERS);
        let descriptors = proc::descriptors(master.pid());
        let address = master.address("http");
        let load = Load::begin(&address, Connections::New, 2);
        let load = load.and(&address, Connections::KeepAlive, self.kept_connections);
        let watch = Watch::begin(&master);
        for id in 1..=self.restarts {
            master.signal(libc::SIGUSR2);
            master.wait_status(&format!("restart {id} completed"), |status| {
                status["restart"]["id"] == id && status["restart"]["state"] == "completed"
            });
        }
        let (seen, ledger) = (watch.end(), load.end());
        record(self.name, format_args!("{} restarts, {ledger}", self.restarts));
        ledger.assert_lossless();
        assert!(
            seen.fewest_ready >= WORKERS,
            "{} of {} looks: {}",
            seen.fewest_ready,
            seen.looks,
            seen.leanest
        );
        master.wait_ready(WORKERS);
        let status = master.status();
        assert_eq!(status["forks"]["crashes"], 0, "{}", master.log_text());
        assert_eq!(status["forks"]["planned"], self.restarts * WORKERS);
        assert_eq!(status["master"]["generation"], self.restarts + 1);
        wait_until("descriptors as before", || proc::descriptors(master.pid()) <= descriptors);
        master.assert_no_zombies();
        master.stop(&scene);
    }
}

#[test]
fn with_a_thread_a_connection() {
    let restarts = sample_or_full(20, 50);
    Roll { name: "roll-threads", settings: settings("threads"), restarts, kept_connections: 3 }.run();
}

#[test]
fn with_one_connection_at_a_time() {
    let restarts = sample_or_full(10, 50);
    Roll { name: "roll-plain", settings: settings("plain"), restarts, kept_connections: 2 }.run();
}

#[test]
fn with_a_non_blocking_listener() {
    let restarts = sample_or_full(10, 50);
    let settings = settings("plain:nonblocking");
    Roll { name: "roll-nonblocking", settings, restarts, kept_connections: 2 }.run();
}

#[test]
fn with_workers_in_no_way_ours() {
    let restarts = sample_or_full(10, 50);
    Roll { name: "roll-foreign", settings: settings("drains"), restarts, kept_connections: 3 }.run();
}

#[test]
fn with_a_socket_a_slot() {
    let mut settings = settings("threads");
    settings["listen"]["reusePort"] = json!(true);
    let restarts = sample_or_full(10, 50);
    Roll { name: "roll-reuseport", settings, restarts, kept_connections: 3 }.run();
}

#[test]
fn with_a_socket_a_slot_and_one_connection_at_a_time() {
    let mut settings = settings("plain");
    settings["listen"]["reusePort"] = json!(true);
    let restarts = sample_or_full(10, 50);
    // A kept connection would hold up those that hash to the same slot's socket.
    Roll { name: "roll-reuseport-plain", settings, restarts, kept_connections: 0 }.run();
}

#[test]
fn two_at_a_time() {
    let mut settings = settings("threads");
    settings["surge"] = json!(2);
    let restarts = sample_or_full(10, 50);
    Roll { name: "roll-surge-2", settings, restarts, kept_connections: 3 }.run();
}

#[test]
fn all_at_a_time() {
    let mut settings = settings("plain");
    settings["surge"] = json!(4);
    let restarts = sample_or_full(10, 50);
    Roll { name: "roll-surge-4", settings, restarts, kept_connections: 2 }.run();
}
