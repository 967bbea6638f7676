//! Workers that die while a restart runs: old ones, the canary, new ones that serve already.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::master::{role_settings, rows};
use crate::harness::{Master, Scene, proc, sample_or_full, sys, wait_until};

const WORKERS: usize = 3;

/// A cluster whose workers are not ready before a gate is open.
struct Gated {
    scene: Scene,
    master: Master,
}

impl Gated {
    #[track_caller]
    fn open(name: &str, canary: u64) -> Self {
        let scene = Scene::new(name);
        let mut settings = role_settings("gated:gate");
        settings["worker"] = json!(WORKERS);
        settings["canary"] = json!(canary);
        settings["cwd"] = json!(scene.folder);
        scene.write("gate", "");
        let master = Master::run(&scene, &settings);
        master.wait_ready(WORKERS);
        Gated { scene, master }
    }

    fn gate(&self) -> PathBuf {
        self.scene.path("gate")
    }

    fn shut(&self) {
        std::fs::remove_file(self.gate()).expect("it was open");
    }

    fn unlock(&self) {
        self.scene.write("gate", "");
    }

    /// Waits for a worker of this generation in this state; its pid.
    #[track_caller]
    fn wait_row(&self, generation: u64, state: &str) -> u32 {
        let found = |status: &Value| {
            rows(status).into_iter().find(|row| row["generation"] == generation && row["state"] == state)
        };
        let status =
            self.master.wait_status(&format!("a {state} worker of generation {generation}"), |status| {
                found(status).is_some_and(|row| row["pid"].is_number())
            });
        let pid = found(&status).and_then(|row| row["pid"].as_u64());
        pid.and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
    }

    #[track_caller]
    fn wait_restart(&self, state: &str) -> Value {
        self.master
            .wait_status(&format!("the restart is {state}"), |status| status["restart"]["state"] == state)
    }

    /// All workers are of this generation, and it is the one that serves.
    #[track_caller]
    fn ends_on(self, generation: u64) {
        self.master.wait_ready(WORKERS);
        let status = self.master.status();
        assert!(rows(&status).iter().all(|row| row["generation"] == generation), "{status}");
        assert_eq!(status["master"]["generation"], generation);
        self.master.stop(&self.scene);
    }
}

#[test]
fn an_old_worker_that_is_killed_is_followed_by_one_of_its_kind() {
    let cluster = Gated::open("meanwhile-old", 20);
    let old = cluster.wait_row(1, "ready");
    cluster.shut();
    cluster.master.signal(libc::SIGUSR2);
    cluster.wait_row(2, "starting");
    sys::kill(old, libc::SIGKILL);
    cluster.wait_row(1, "starting");
    let status = cluster.master.status();
    assert_eq!((&status["restart"]["state"], &status["forks"]["crashes"]), (&json!("running"), &json!(1)));
    cluster.unlock();
    cluster.wait_restart("completed");
    cluster.ends_on(2);
}

#[test]
fn a_canary_that_is_killed_aborts() {
    let cluster = Gated::open("meanwhile-canary", 20);
    cluster.shut();
    cluster.master.signal(libc::SIGUSR2);
    sys::kill(cluster.wait_row(2, "starting"), libc::SIGKILL);
    let status = cluster.wait_restart("aborted");
    let failed = &status["restart"]["failed"];
    assert_eq!((&failed["cause"], &failed["signal"]), (&json!("boot-failed"), &json!(9)), "{status}");
    assert_eq!((&status["forks"]["crashes"], &status["forks"]["budgetLeft"]), (&json!(0), &json!(100)));
    cluster.unlock();
    cluster.ends_on(1);
}

#[test]
fn a_new_worker_that_is_killed_in_its_seat_aborts_and_all_are_rolled_back() {
    // Long enough to shut the gate before the second one starts.
    let cluster = Gated::open("meanwhile-new", 1500);
    cluster.master.signal(libc::SIGUSR2);
    let new = cluster.wait_row(2, "ready");
    cluster.shut();
    let status = cluster.master.wait_status("one is replaced, the next waits at the gate", |status| {
        status["restart"]["phase"] == "rest" && rows(status).iter().any(|row| row["state"] == "starting")
    });
    let replaced = status["restart"]["replaced"].as_u64().expect("a number");
    sys::kill(new, libc::SIGKILL);
    let status = cluster.master.wait_status("rolling back", |status| {
        status["restart"]["phase"] == "rolling-back" && status["restart"]["state"] == "running"
    });
    assert_eq!(
        (&status["master"]["state"], &status["master"]["generation"]),
        (&json!("restarting"), &json!(1))
    );
    assert!(
        status["restart"]["reason"].as_str().is_some_and(|reason| reason.contains("signal 9")),
        "{status}"
    );
    assert_eq!(status["restart"]["replaced"], replaced - 1, "{status}");
    assert_eq!(cluster.master.ask("/restart").body, "OK", "remembered");
    cluster.unlock();
    let status = cluster.master.wait_status("both are over", |status| {
        status["restart"]["id"] == 2 && status["restart"]["state"] == "completed"
    });
    assert_eq!((&status["forks"]["crashes"], &status["forks"]["budgetLeft"]), (&json!(0), &json!(100)));
    assert!(cluster.master.has_logged("restart 1 aborted with 0 of 3"), "{}", cluster.master.log_text());
    cluster.ends_on(3);
}

/// Neither descriptors nor numbers pile up in a master whose release is refused again and again.
#[test]
fn many_refused_releases_leave_nothing_behind() {
    let cluster = Gated::open("meanwhile-many", 20);
    let before = proc::descriptors(cluster.master.pid());
    cluster.shut();
    let rounds = sample_or_full(10, 100);
    for id in 1..=rounds {
        cluster.master.signal(libc::SIGUSR2);
        let generation = u64::try_from(id + 1).expect("few");
        sys::kill(cluster.wait_row(generation, "starting"), libc::SIGKILL);
        cluster.master.wait_status(&format!("restart {id} is aborted"), |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "aborted"
        });
    }
    wait_until("descriptors as before", || proc::descriptors(cluster.master.pid()) <= before);
    assert_eq!(
        cluster.master.status()["forks"],
        json!({ "crashes": 0, "planned": rounds, "budgetLeft": 100 })
    );
    cluster.unlock();
    cluster.ends_on(1);
}
