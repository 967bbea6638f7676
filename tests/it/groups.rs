//! Process groups and ends: nobody outlives whom it belongs to, and every end is counted once.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::master::{role_settings, rows, shell_workers};
use crate::harness::{Master, Scene, eventually, get, proc, sample_or_full, sys, wait_until};

/// Ignores SIGTERM and has a child in its group that does, too.
const STUBBORN: &str = "trap '' TERM; sleep 300 & while :; do wait; done";
const WITH_CHILD: &str = "sleep 300 & wait";
/// Its child leads a session of its own, and holds the channel and stdout open.
const WITH_DAEMON: &str = "setsid sleep 300 & wait";

/// The child that the worker has, once it runs `sleep`.
fn sleeping_child(worker: u32) -> u32 {
    eventually("the worker has a child that sleeps", || {
        proc::children(worker).into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        })
    })
}

#[test]
fn a_stubborn_stopped_worker_and_its_child_are_gone_at_the_timeout() {
    let scene = Scene::new("stubborn");
    let mut settings = shell_workers(1, STUBBORN);
    settings["disconnectTimeout"] = 300.into();
    settings["canary"] = 0.into();
    let master = Master::run(&scene, &settings);
    let worker = *master.wait_ready(1).first().unwrap();
    let child = sleeping_child(worker);
    sys::kill(worker, libc::SIGSTOP);
    wait_until("stopped", || proc::state(worker) == Some('T'));
    master.signal(libc::SIGUSR2);
    master.wait_log("worker 1 (slot 0) has not left within 300 ms; killing its process group");
    wait_until("both are gone", || proc::state(worker).is_none() && !proc::is_alive(child));
    let successor = *master.wait_ready(1).first().unwrap();
    let last = &rows(&master.status())[0]["lastExit"];
    assert_eq!((&last["cause"], &last["signal"]), (&json!("killed-at-timeout"), &json!(9)));
    sys::kill(sleeping_child(successor), libc::SIGSTOP);
    sys::kill(successor, libc::SIGSTOP);
    master.stop(&scene);
}

#[test]
fn a_stopped_worker_is_continued_and_leaves_by_itself() {
    for settings in [role_settings("service"), role_settings("foreign")] {
        let scene = Scene::new("continued");
        let mut settings = settings;
        settings["worker"] = 2.into();
        settings["disconnectTimeout"] = 60_000.into();
        let master = Master::run(&scene, &settings);
        for pid in master.wait_ready(2) {
            sys::kill(pid, libc::SIGSTOP);
            wait_until("stopped", || proc::state(pid) == Some('T'));
        }
        master.stop(&scene);
    }
}

#[test]
fn a_crashed_workers_children_die_with_it() {
    let scene = Scene::new("crash-children");
    let master = Master::run(&scene, &shell_workers(1, WITH_CHILD));
    for crash in 1..=3 {
        let worker = *master.wait_ready(1).first().unwrap();
        let child = sleeping_child(worker);
        sys::kill(worker, libc::SIGKILL);
        wait_until("the child is gone", || !proc::is_alive(child));
        master.wait_status("counted", |status| status["forks"]["crashes"] == crash);
    }
    master.wait_ready(1);
    master.stop(&scene);
}

#[test]
fn a_daemon_that_holds_the_channel_and_stdout_does_not_delay_the_reap() {
    let scene = Scene::new("daemon");
    let master = Master::run(&scene, &shell_workers(1, WITH_DAEMON));
    let worker = *master.wait_ready(1).first().unwrap();
    let daemon = sleeping_child(worker);
    assert!(proc::open_files(daemon)[&3].starts_with("socket:"), "the channel");
    sys::kill(worker, libc::SIGKILL);
    let status = master.wait_status("replaced", |status| {
        let rows = rows(status);
        rows.len() == 1 && rows[0]["state"] == "ready" && rows[0]["id"] == 2
    });
    assert_eq!(rows(&status)[0]["lastExit"]["signal"], 9);
    assert!(proc::state(worker).is_none(), "reaped");
    assert!(proc::is_alive(daemon), "it left the group, so that it is nobody's to kill");
    sys::kill(daemon, libc::SIGKILL);
    let second = sleeping_child(rows(&status)[0]["pid"].as_u64().unwrap().try_into().unwrap());
    let mut master = master;
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    sys::kill(second, libc::SIGKILL);
    scene.assert_nothing_left();
}

#[test]
fn a_killed_master_takes_its_workers_along_and_the_next_one_binds() {
    let scene = Scene::new("killed-master");
    let mut settings = role_settings("service");
    // An address of this test alone, so that nobody else takes its port between two masters.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    settings["listen"]["address"] = json!(format!("127.77.{high}.{low}:18080"));
    settings["pid"] = json!(scene.path("pid"));
    for _ in 0..sample_or_full(5, 200) {
        let master = Master::run(&scene, &settings);
        let workers = master.wait_ready(4);
        get(&master.address("http"), "/");
        drop(master); // kills it
        wait_until("the workers are gone", || workers.iter().all(|pid| !proc::is_alive(*pid)));
    }
    scene.assert_nothing_left();
}

#[test]
fn fifty_ends_while_the_master_stands_still_are_counted_once_each() {
    let scene = Scene::new("fifty");
    let master = Master::run(&scene, &shell_workers(50, "exec sleep 300"));
    let workers = master.wait_ready(50);
    let before = proc::descriptors(master.pid());
    master.signal(libc::SIGSTOP);
    wait_until("stopped", || proc::state(master.pid()) == Some('T'));
    for pid in &workers {
        sys::kill(*pid, libc::SIGKILL);
    }
    wait_until("all dead", || workers.iter().all(|pid| proc::state(*pid) == Some('Z')));
    master.signal(libc::SIGCONT);
    let status = master.wait_status("all replaced", |status| {
        let rows = rows(status);
        rows.len() == 50 && rows.iter().all(|row| row["state"] == "ready" && row["respawns"] == 1)
    });
    assert_eq!((&status["forks"]["crashes"], &status["forks"]["budgetLeft"]), (&json!(50), &json!(50)));
    let slots: BTreeSet<u64> = rows(&status).iter().map(|row| row["slot"].as_u64().unwrap()).collect();
    assert_eq!(slots.len(), 50);
    assert!(master.wait_ready(50).is_disjoint(&workers));
    master.assert_no_zombies();
    wait_until("descriptors as before", || proc::descriptors(master.pid()) <= before);
    master.stop(&scene);
}
