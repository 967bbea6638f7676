//! Workers that flood the master, and a master that goes on as if nothing were.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::master::{role_command, role_settings, rows};
use crate::harness::{Master, Scene, pause, proc, record, sample_or_full, wait_until};
use crate::roles::floods::{COUNTED, COUNTED_ONCE, MOST_GROWTH};

/// What an answer may take while the floods go on. Half of them, since the machine does other work as well.
const SOON: Duration = Duration::from_millis(100);

#[track_caller]
fn play_well(role: &str) {
    let scene = Scene::new(&format!("floods-{}", role.replace(':', "-")));
    let mut host = Master::start(&scene, role_command(format!("floods:{role}")));
    let status = host.wait_exit();
    assert!(status.success(), "{role}: {status}\n{}", host.log_text());
    scene.assert_nothing_left();
}

#[test]
fn a_million_messages_up_and_down_arrive_in_order() {
    play_well(&format!("million:{}", sample_or_full(10_000, 250_000)));
}

#[test]
fn a_listener_that_stands_still_holds_back_its_senders_alone() {
    play_well("slow");
}

#[test]
fn floods_cost_nothing_but_what_they_are() {
    let scene = Scene::new("floods");
    let mut settings = role_settings("floods:raw");
    settings["listen"] = json!([]);
    settings["disconnectTimeout"] = json!(100);
    let master = Master::run(&scene, &settings);
    master.wait_ready(4);
    let before = proc::resident(master.pid());
    scene.write("go", "");
    let mut looks = Vec::new();
    let status = loop {
        let began = Instant::now();
        let status = master.status();
        looks.push(began.elapsed());
        // Nobody reads this: what may wait for a worker is soon full.
        master.post("/send", &json!("x".repeat(60_000)).to_string());
        let done = ["giant", "counted"].iter().all(|name| scene.path(name).exists());
        if done && looks.len() >= sample_or_full(300, 3000) {
            break status;
        }
        pause();
    };
    looks.sort();
    let grown = proc::peak(master.pid()).saturating_sub(before);
    let (middle, worst) = (looks[looks.len() / 2], looks[looks.len() - 1]);
    record(
        "floods",
        format_args!("grown by {} KiB; a status takes {middle:?}, at worst {worst:?}", grown >> 10),
    );
    assert!(middle < SOON, "{middle:?}");
    assert!(grown < MOST_GROWTH, "grown by {} KiB", grown >> 10);
    let row = |status: &Value, slot: usize| {
        rows(status).into_iter().find(|row| row["slot"] == slot).expect("a row")
    };
    assert!(row(&status, 1)["messagesIn"].as_u64() > Some(0), "single bytes make lines");
    wait_until("what came after the giant line is there", || row(&master.status(), 2)["messagesIn"] == 1);
    assert_eq!(row(&master.status(), 3)["messagesIn"], 3 * COUNTED);
    master.stop(&scene);
}

#[test]
fn what_is_dropped_is_counted_to_the_line() {
    let scene = Scene::new("counted");
    let mut settings = role_settings("floods:counted");
    settings["worker"] = json!(1);
    settings["listen"] = json!([]);
    settings["disconnectTimeout"] = json!(100);
    let master = Master::run(&scene, &settings);
    scene.write("go", "");
    wait_until("all is sent", || scene.path("counted").exists());
    let dropped = 3 * COUNTED + COUNTED_ONCE;
    let status = master.wait_status("all is counted", |status| status["dropped"]["messages"] == dropped);
    assert_eq!(rows(&status)[0]["messagesIn"], 3 * COUNTED);
    master.wait_log("worker 1: lines on its channel dropped: ");
    master.stop(&scene);
}
