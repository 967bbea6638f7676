//! Why a worker ended: each cause of the status, by what brings it about.

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, role_settings, rows, shell_settings};
use crate::harness::{Master, Scene, sys};

/// The seat's last exit once it has this cause.
#[track_caller]
fn wait_cause(master: &Master, cause: &str) -> Value {
    let ended = |status: &Value| rows(status).into_iter().find(|row| row["lastExit"]["cause"] == cause);
    let status = master.wait_status(cause, |status| ended(status).is_some());
    ended(&status).expect("it is there")
}

/// The first replacement comes at once; the second is not in a hurry.
fn slow_to_replace(mut settings: Value) -> Value {
    settings["worker"] = json!(1);
    settings["backoff"] = json!({ "initial": 60_000, "max": 60_000 });
    settings
}

#[test]
fn boot_failed_and_backoff() {
    let scene = Scene::new("boot-failed");
    let master = Master::run(&scene, &slow_to_replace(shell_settings("exit 7")));
    let status = master.wait_status("waiting", |status| {
        rows(status).len() == 1 && rows(status)[0]["state"] == "backoff" && rows(status)[0]["id"] == 2
    });
    let row = &rows(&status)[0];
    assert_eq!((&row["pid"], &row["respawns"]), (&Value::Null, &json!(2)));
    assert_eq!(row["lastExit"]["cause"], "boot-failed");
    assert_eq!((&row["lastExit"]["code"], &row["lastExit"]["signal"]), (&json!(7), &Value::Null));
    assert_eq!(status["forks"]["crashes"], 2);
    master.wait_log("worker 2 (slot 0) died before it was ready: exit status 7; respawning in 60000 ms");
    master.stop(&scene);
}

#[test]
fn status_0_is_a_crash_too() {
    let scene = Scene::new("exits-0");
    let master = Master::run(&scene, &slow_to_replace(role_settings("exits:0")));
    let row = wait_cause(&master, "boot-failed");
    assert_eq!(row["lastExit"]["code"], 0);
    master.stop(&scene);
}

#[test]
fn quick_and_crashed() {
    for (min_uptime, cause) in [(600_000, "quick"), (0, "crashed")] {
        let scene = Scene::new(cause);
        let mut settings = slow_to_replace(role_settings("service"));
        settings["minUptime"] = json!(min_uptime);
        let master = Master::run(&scene, &settings);
        sys::kill(master.wait_one_ready(), libc::SIGABRT);
        let row = wait_cause(&master, cause);
        assert_eq!((&row["lastExit"]["code"], &row["lastExit"]["signal"]), (&Value::Null, &json!(6)));
        master.wait_one_ready();
        master.stop(&scene);
    }
}

#[test]
fn ready_timeout() {
    let scene = Scene::new("ready-timeout");
    let mut settings = slow_to_replace(idle_settings());
    settings["ready"] = json!("notify");
    settings["readyTimeout"] = json!(50);
    let master = Master::run(&scene, &settings);
    let row = wait_cause(&master, "ready-timeout");
    assert_eq!((&row["lastExit"]["code"], &row["lastExit"]["signal"]), (&Value::Null, &json!(9)));
    master.wait_log("worker 1 (slot 0) was not ready within 50 ms; killing it");
    master.stop(&scene);
}

#[test]
fn stopped_by_its_own_exit_or_by_the_stop_signal() {
    for (role, code, signal) in [("service", json!(0), Value::Null), ("foreign", Value::Null, json!(15))] {
        let scene = Scene::new("stopped");
        let mut settings = role_settings(role);
        settings["worker"] = json!(1);
        settings["canary"] = json!(0);
        let master = Master::run(&scene, &settings);
        master.wait_one_ready();
        master.signal(libc::SIGUSR2);
        let row = wait_cause(&master, "stopped");
        assert_eq!((&row["lastExit"]["code"], &row["lastExit"]["signal"]), (&code, &signal), "{role}");
        assert_eq!((&row["id"], &row["respawns"]), (&json!(2), &json!(0)));
        master.stop(&scene);
    }
}

/// The program is gone when a worker has to be replaced: said each time, with a growing delay, and the rest goes on.
#[test]
fn spawn_failed_when_the_program_has_vanished() {
    let scene = Scene::new("vanished");
    let script = scene.write_program("worker.sh", "#!/bin/sh\nexec sleep 1000\n");
    let settings = json!({
        "worker": 2, "exec": script, "minUptime": 20, "backoff": { "initial": 30, "max": 120 },
    });
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    std::fs::remove_file(&script).expect("there");
    let (lost, kept) = (*first.first().expect("two"), *first.last().expect("two"));
    sys::kill(lost, libc::SIGKILL);
    for delay in [30, 60, 120] {
        let line = master.wait_log(&format!("respawning in {delay} ms"));
        assert!(line.contains("could not be started: execute") && line.contains("worker.sh"), "{line}");
        assert!(line.contains("no such file or directory"), "{line}");
    }
    let row = wait_cause(&master, "spawn-failed");
    assert_eq!((&row["pid"], &row["state"]), (&Value::Null, &json!("backoff")));
    assert_eq!((&row["lastExit"]["code"], &row["lastExit"]["signal"]), (&Value::Null, &Value::Null));
    assert!(row["lastExit"]["reason"].as_str().is_some_and(|reason| reason.contains("worker.sh")), "{row}");
    let status = master.status();
    let other = rows(&status).into_iter().find(|row| row["pid"] == kept).expect("the other worker");
    assert_eq!((&other["state"], &other["respawns"]), (&json!("ready"), &json!(0)));
    scene.write_program("worker.sh", "#!/bin/sh\nexec sleep 1000\n");
    assert!(master.wait_ready(2).contains(&kept));
    master.stop(&scene);
}
