//! Single workers are replaced for their age, their size, or because somebody asked: under load, without loss.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::load::{Connections, Load};
use crate::harness::master::{idle_settings, role_settings, rows};
use crate::harness::watch::Watch;
use crate::harness::{Master, Scene, sample_or_full, wait_until};

fn settings(role: &str) -> Value {
    let mut settings = role_settings(role);
    settings["worker"] = json!(3);
    settings["minUptime"] = json!(0);
    settings
}

#[track_caller]
fn planned(master: &Master, count: u64) -> Value {
    master.wait_status(&format!("{count} planned"), |status| {
        status["forks"]["planned"].as_u64() >= Some(count) && rows(status).len() == 3
    })
}

#[test]
fn by_age_one_at_a_time_and_nothing_is_lost() {
    let scene = Scene::new("recycle-age");
    let mut settings = settings("threads");
    settings["maxLifetime"] = json!(400);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(3);
    let load = Load::begin(&master.address("http"), Connections::New, 2);
    let watch = Watch::begin(&master);
    let status = planned(&master, sample_or_full(6, 60) as u64);
    let (seen, ledger) = (watch.end(), load.end());
    ledger.assert_lossless();
    assert!(seen.fewest_ready >= 3, "{}", seen.leanest);
    let now: BTreeSet<u64> = rows(&status).iter().filter_map(|row| row["pid"].as_u64()).collect();
    assert!(first.iter().all(|pid| !now.contains(&u64::from(*pid))), "all are new");
    assert_eq!((&status["forks"]["crashes"], &status["forks"]["budgetLeft"]), (&json!(0), &json!(100)));
    assert!(rows(&status).iter().all(|row| row["generation"] == 1));
    let exit = &rows(&status)[0]["lastExit"];
    assert_eq!(exit["cause"], "stopped");
    let reason = exit["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("recycled: it has lived for "), "{reason}");
    assert!(reason.ends_with(", and maxLifetime is 400"), "{reason}");
    master.assert_no_zombies();
    master.stop(&scene);
}

#[test]
fn by_its_size_with_the_figure() {
    let scene = Scene::new("recycle-memory");
    let mut settings = settings("grows");
    settings["maxMemory"] = json!(64 << 20);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(3);
    let big = *first.first().expect("three");
    scene.write(&format!("grow-{big}"), "");
    let status = planned(&master, 1);
    assert!(!rows(&status).iter().any(|row| row["pid"] == big));
    assert_eq!(master.wait_ready(3).intersection(&first).count(), 2, "the others stay");
    let exits: Vec<Value> = rows(&master.status()).iter().map(|row| row["lastExit"].clone()).collect();
    let exit = exits.iter().find(|exit| !exit.is_null()).expect("its slot's");
    let reason = exit["reason"].as_str().expect("a reason");
    let figure = reason.strip_prefix("recycled: it holds ").and_then(|rest| rest.split_once(" bytes"));
    let bytes: u64 = figure.expect(reason).0.parse().expect("a figure");
    assert!((64 << 20..1 << 30).contains(&bytes), "{reason}");
    master.wait_log(&format!("it holds {bytes} bytes of memory, and maxMemory is 67108864"));
    master.stop(&scene);
}

#[test]
fn by_its_own_wish_and_by_order() {
    let scene = Scene::new("recycle-asked");
    let master = Master::run(&scene, &settings("grows"));
    let first = master.wait_ready(3);
    let asking = *first.first().expect("three");
    scene.write(&format!("ask-{asking}"), "");
    planned(&master, 1);
    master.wait_log("is being replaced: it asked for it");
    let second = master.wait_ready(3);
    assert_eq!(first.difference(&second).collect::<Vec<_>>(), [&asking]);
    let id = rows(&master.status())[2]["id"].as_u64().expect("an id");
    assert_eq!(master.ask(&format!("/workers/{id}/restart")).body, "OK");
    planned(&master, 2);
    let third = master.wait_ready(3);
    assert_eq!(second.difference(&third).count(), 1);
    for unknown in ["999", &id.to_string()] {
        let answer = master.ask(&format!("/workers/{unknown}/restart"));
        assert_eq!((answer.status, answer.body.as_str()), (404, "NOT FOUND"), "{unknown}");
    }
    let status = master.status();
    assert_eq!((&status["forks"]["crashes"], &status["restart"]), (&json!(0), &Value::Null));
    master.stop(&scene);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_worker_in_service() {
    let scene = Scene::new("recycle-fails");
    let gate = scene.write("gate", "");
    let mut settings = settings(&format!("gated:{}", gate.display()));
    settings["readyTimeout"] = json!(300);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(3);
    std::fs::remove_file(&gate).expect("the gate");
    let id = rows(&master.status())[0]["id"].as_u64().expect("an id");
    let load = Load::begin(&master.address("http"), Connections::New, 2);
    assert_eq!(master.ask(&format!("/workers/{id}/restart")).body, "OK");
    master.wait_log("the worker of slot 0 stays for now, its replacement failed");
    let serves = |status: &Value| rows(status).iter().any(|row| row["id"] == id && row["state"] == "ready");
    assert!(serves(&master.status()));
    std::fs::write(&gate, "").expect("the gate");
    wait_until("a later try succeeds", || !serves(&master.status()));
    load.end().assert_lossless();
    assert_eq!(master.wait_ready(3).intersection(&first).count(), 2);
    assert_eq!(master.status()["forks"]["crashes"], 0);
    master.stop(&scene);
}

#[test]
fn a_restart_comes_first() {
    let scene = Scene::new("recycle-restart");
    let mut settings = settings("threads");
    settings["maxLifetime"] = json!(300);
    settings["canary"] = json!(700);
    let master = Master::run(&scene, &settings);
    master.wait_ready(3);
    let load = Load::begin(&master.address("http"), Connections::New, 2);
    master.signal(libc::SIGUSR2);
    master.wait_status("completed", |status| status["restart"]["state"] == "completed");
    // Recycling goes on with the new generation.
    let planned_by_then = master.status()["forks"]["planned"].as_u64().expect("a count");
    let status = planned(&master, planned_by_then + 3);
    load.end().assert_lossless();
    assert!(rows(&status).iter().all(|row| row["generation"] == 2), "{status}");
    assert_eq!(status["forks"]["crashes"], 0);
    master.stop(&scene);
}

#[test]
fn the_loop_is_not_woken_where_nobody_looks_at_memory() {
    let scene = Scene::new("recycle-off");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    let names = std::fs::read_dir(format!("/proc/{}/task", master.pid())).expect("threads");
    let names = names.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    assert!(!names.collect::<String>().contains("proteus-memory"));
    master.stop(&scene);
}
