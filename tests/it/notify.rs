//! What a worker may say by `sd_notify` beside ready, and how calmly the rest is taken.

use serde_json::{Value, json};

use crate::harness::master::{role_settings, rows};
use crate::harness::{Master, Scene, proc, wait_until};

fn settings(workers: usize) -> Value {
    let mut settings = role_settings(&format!("speaker:{workers}"));
    settings["worker"] = json!(workers);
    settings["ready"] = json!("notify");
    settings["disconnectTimeout"] = json!(200);
    settings.as_object_mut().expect("an object").remove("listen");
    settings
}

/// Lets the first worker of a slot say something, in one step: it never reads half a text.
fn say(scene: &Scene, slot: usize, turn: usize, text: &str) {
    let aside = scene.write(&format!("aside-{slot}-{turn}"), text);
    std::fs::rename(aside, scene.path(&format!("say-{slot}-{turn}"))).expect("renamed");
}

fn first_row(status: &Value) -> Value {
    rows(status).first().cloned().unwrap_or_default()
}

#[test]
fn the_status_text_is_shown_and_a_reload_is_nothing_special() {
    let scene = Scene::new("notify-status");
    let master = Master::run(&scene, &settings(1));
    say(&scene, 0, 1, "STATUS=warming up: 40 %");
    let status = master.wait_status("the text", |status| first_row(status)["status"] == "warming up: 40 %");
    assert_eq!(first_row(&status)["state"], "starting");
    say(&scene, 0, 2, "READY=1\nSTATUS=serving \"all\"\u{1b}[31m");
    let pid = master.wait_one_ready();
    assert_eq!(first_row(&master.status())["status"], "serving \"all\"\u{1b}[31m");
    say(&scene, 0, 3, "RELOADING=1\nMONOTONIC_USEC=12\nSTATUS=");
    master.wait_status("no text", |status| first_row(status)["status"].is_null());
    say(&scene, 0, 4, "READY=1\nSTATUS=again");
    master.wait_status("a text", |status| first_row(status)["status"] == "again");
    assert_eq!(master.wait_one_ready(), pid);
    master.stop(&scene);
}

/// Replaced while it still runs; neither a crash, nor waited for without end.
#[test]
fn stopping_by_its_own_wish_is_planned() {
    for ends_by_itself in [true, false] {
        let scene = Scene::new("notify-stopping");
        let mut settings = settings(1);
        settings["minUptime"] = json!(0);
        settings["disconnectTimeout"] = json!(if ends_by_itself { 600_000 } else { 200 });
        let master = Master::run(&scene, &settings);
        say(&scene, 0, 1, "READY=1");
        let first = master.wait_one_ready();
        say(&scene, 0, 2, "STOPPING=1");
        say(&scene, 0, 3, if ends_by_itself { "exit 7" } else { "STATUS=never" });
        master.wait_log("worker 1 (slot 0) leaves by its own wish; respawning now");
        let status = master.wait_status("the first is gone", |status| {
            rows(status).iter().all(|row| row["id"] != 1) && first_row(status)["lastExit"].is_object()
        });
        let last = &first_row(&status)["lastExit"];
        let expected =
            if ends_by_itself { ("stopped", json!(7)) } else { ("killed-at-timeout", Value::Null) };
        assert_eq!((last["cause"].as_str(), &last["code"]), (Some(expected.0), &expected.1), "{last}");
        assert!(!proc::is_alive(first) && master.wait_one_ready() != first);
        assert_eq!(status["forks"]["crashes"], 0, "{status}");
        assert_eq!(status["forks"]["budgetLeft"], 100, "{status}");
        drop(master);
    }
}

#[test]
fn time_to_start_and_to_stop_for_the_asking() {
    let scene = Scene::new("notify-extend");
    let mut settings = settings(1);
    settings["readyTimeout"] = json!(1500);
    let master = Master::run(&scene, &settings);
    say(&scene, 0, 1, "EXTEND_TIMEOUT_USEC=600000000\nSTATUS=slow");
    master.wait_status("it is slow", |status| first_row(status)["status"] == "slow");
    master
        .wait_status("the time-out has passed", |status| first_row(status)["uptimeMs"].as_u64() > Some(1700));
    say(&scene, 0, 2, "READY=1");
    let pid = master.wait_one_ready();
    master.signal(libc::SIGTERM);
    say(&scene, 0, 3, "EXTEND_TIMEOUT_USEC=600000000\nSTOPPING=1\nSTATUS=still at it");
    let told = std::time::Instant::now();
    wait_until("the time-out has passed", || told.elapsed().as_millis() > 400);
    assert!(proc::is_alive(pid), "{}", master.log_text());
    say(&scene, 0, 4, "exit 0");
    assert!(!master.has_logged("has not left within"), "{}", master.log_text());
    master.ends_with(&scene, 0);
}

#[test]
fn ready_and_dead_is_a_crash_each_time() {
    let scene = Scene::new("notify-dies");
    let mut settings = settings(1);
    settings["env"]["PROTEUS_TEST_ROLE"] = json!("brief-word");
    settings["maxForkCount"] = json!(3);
    settings["backoff"] = json!({ "initial": 1, "max": 2 });
    let mut master = Master::run(&scene, &settings);
    assert_eq!(master.wait_exit().code(), Some(3), "{}", master.log_text());
    for worker in 1..=4 {
        master.wait_log(&format!("worker {worker} (slot 0) is ready"));
        master.wait_log(&format!("worker {worker} (slot 0) died soon after its start: exit status 5"));
    }
    scene.assert_nothing_left();
}

/// Its own word counts, whatever pid it names; at its sibling's socket it is a stranger.
#[test]
fn nobody_says_ready_for_another() {
    let scene = Scene::new("notify-sibling");
    let mut settings = settings(2);
    settings["readyTimeout"] = json!(600_000);
    let master = Master::run(&scene, &settings);
    let status = master.wait_status("two start", |status| rows(status).len() == 2);
    let pid =
        |slot: usize| u32::try_from(rows(&status)[slot]["pid"].as_u64().expect("a pid")).expect("a pid");
    let name = proc::environment(pid(1))["NOTIFY_SOCKET"].clone();
    say(&scene, 0, 1, &format!("at {name} READY=1\nMAINPID={}\nSTATUS=forged", pid(1)));
    say(&scene, 0, 2, &format!("READY=1\nMAINPID={}", pid(1)));
    let status = master.wait_status("the speaker is ready", |status| rows(status)[0]["state"] == "ready");
    for _ in 0..3 {
        let status = master.status();
        assert_eq!(rows(&status)[1]["state"], "starting", "{status}");
        assert_eq!(rows(&status)[1]["status"], Value::Null, "{status}");
    }
    assert_eq!(rows(&status)[0]["pid"], pid(0));
    drop(master);
}
