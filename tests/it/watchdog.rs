//! Hung workers are found, ended with a core, and replaced; nobody else is.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::load::{Client, Connections};
use crate::harness::master::{role_settings, rows, shell_workers};
use crate::harness::{Master, Scene, proc, sys, wait_until};

fn settings(role: &str) -> Value {
    let mut settings = role_settings(role);
    settings["worker"] = json!(2);
    settings["watchdog"] = json!(400);
    settings["canary"] = json!(0);
    settings
}

#[track_caller]
fn wait_hung(master: &Master, crashes: u64) -> Value {
    let status = master.wait_status("the hung worker is replaced", |status| {
        status["forks"]["crashes"] == crashes && rows(status).iter().all(|row| row["state"] == "ready")
    });
    let hung = rows(&status).into_iter().find(|row| row["lastExit"]["cause"] == "hung");
    hung.expect("its slot says so")["lastExit"].clone()
}

#[test]
fn a_worker_whose_loop_stands_still_is_aborted_and_replaced_while_the_rest_serve() {
    let scene = Scene::new("hung-loop");
    let master = Master::run(&scene, &settings("beats"));
    let first = master.wait_ready(2);
    let hung = *first.first().expect("two");
    scene.write(&format!("hang-{hung}"), "");
    let exit = wait_hung(&master, 1);
    assert_eq!((&exit["signal"], &exit["code"]), (&json!(libc::SIGABRT), &Value::Null));
    master.wait_log("has said nothing for 400 ms and counts as hung; SIGABRT now, SIGKILL in 5000 ms");
    let second = master.wait_ready(2);
    assert_eq!(first.difference(&second).collect::<Vec<_>>(), [&hung], "the other one goes on");
    assert_eq!(master.status()["forks"]["budgetLeft"], 99);
    // The master stands still for longer than anybody may be silent: that is no fault of theirs.
    master.signal(libc::SIGSTOP);
    wait_until("stopped", || proc::state(master.pid()) == Some('T'));
    std::thread::park_timeout(std::time::Duration::from_millis(700));
    master.signal(libc::SIGCONT);
    let mut client = Client::new(&master.address("http"), Connections::New);
    (0..20).for_each(|_| client.request());
    client.ledger.assert_lossless();
    assert_eq!(master.wait_ready(2), second);
    master.stop(&scene);
}

#[test]
fn a_stopped_process_is_hung_as_well() {
    let scene = Scene::new("hung-stopped");
    let master = Master::run(&scene, &settings("beats"));
    let stopped = *master.wait_ready(2).first().expect("two");
    sys::kill(stopped, libc::SIGSTOP);
    assert_eq!(wait_hung(&master, 1)["signal"], libc::SIGABRT);
    assert!(!master.wait_ready(2).contains(&stopped));
    master.stop(&scene);
}

/// `incoming` says so while it waits, and falls silent with a connection in hand.
#[test]
fn an_idle_loop_over_incoming_is_alive_and_one_that_hangs_within_it_is_not() {
    let scene = Scene::new("hung-incoming");
    let master = Master::run(&scene, &settings("service"));
    let first = master.wait_ready(2);
    master.wait_status("five times the watchdog's time", |status| {
        rows(status).iter().all(|row| row["uptimeMs"].as_u64().is_some_and(|age| age > 2000))
    });
    assert_eq!(master.status()["forks"]["crashes"], 0, "{}", master.log_text());
    let mut client = TcpStream::connect(master.address("http")).expect("connected");
    client.write_all(b"GET /slow HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(wait_hung(&master, 1)["signal"], libc::SIGABRT);
    assert_eq!(first.intersection(&master.wait_ready(2)).count(), 1, "the idle one stays");
    master.stop(&scene);
}

/// The watchdog's time counts from the accept, however long before it the last heartbeat was.
#[test]
fn work_on_one_connection_may_take_nearly_the_whole_of_the_time() {
    let scene = Scene::new("hung-nearly");
    let mut settings = settings("service");
    settings["watchdog"] = json!(1200);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    for request in 0..6 {
        let mut client = TcpStream::connect(master.address("http")).expect("connected");
        client.write_all(b"GET /slow HTTP/1.1\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{request}: {answer}: {}", master.log_text());
    }
    assert_eq!((master.wait_ready(2), &master.status()["forks"]["crashes"]), (first, &json!(0)));
    master.stop(&scene);
}

/// In any language: `sd_notify`, or the line on the channel.
#[test]
fn both_ways_of_saying_so_count() {
    let scene = Scene::new("heartbeats");
    for role in ["beats:notify", "beats:line"] {
        let master = Master::run(&scene, &settings(role));
        let first = master.wait_ready(2);
        scene.write(&format!("hang-{}", first.first().expect("two")), "");
        wait_hung(&master, 1);
        assert_eq!(master.wait_ready(2).intersection(&first).count(), 1, "{role}");
        master.stop(&scene);
    }
}

#[test]
fn a_replacement_that_hangs_ends_the_restart_and_the_old_ones_stay() {
    let scene = Scene::new("hung-release");
    let mut settings = settings("beats");
    settings["canary"] = json!(60_000);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    scene.write("hang-new", "");
    master.signal(libc::SIGUSR2);
    let status = master.wait_status("aborted", |status| status["restart"]["state"] == "aborted");
    assert!(status["restart"]["reason"].as_str().unwrap().ends_with("said nothing for 400 ms"), "{status}");
    assert_eq!(master.wait_ready(2), first);
    assert_eq!(master.status()["forks"]["crashes"], 0);
    master.stop(&scene);
}

#[test]
fn the_environment_says_how_often_and_to_whom() {
    let scene = Scene::new("watchdog-env");
    let mut settings = shell_workers(1, "exec sleep 300");
    settings["watchdog"] = json!(90_000);
    let master = Master::run(&scene, &settings);
    let pid = master.wait_one_ready();
    let environment = proc::environment(pid);
    assert_eq!(environment["WATCHDOG_USEC"], "90000000");
    assert_eq!(environment["WATCHDOG_PID"], pid.to_string());
    assert!(!environment.contains_key("LISTEN_PID"));
    master.stop(&scene);
    let master = Master::run(&scene, &shell_workers(1, "exec sleep 300"));
    let environment = proc::environment(master.wait_one_ready());
    assert!(!environment.keys().any(|key| key.starts_with("WATCHDOG")), "{environment:?}");
    master.stop(&scene);
}
