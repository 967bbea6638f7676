//! A worker that shuts a listener down (`shutdown(2)`) does so for all; the master makes it listen again.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::over_unix;
use crate::harness::master::{role_settings, rows};
use crate::harness::{Master, Scene, get, proteus, sys, try_get, wait_until};

fn settings(scene: &Scene, workers: usize, listen: Value) -> Value {
    let mut settings = role_settings("shuts");
    settings["worker"] = json!(workers);
    settings["canary"] = json!(0);
    settings["minUptime"] = json!(20);
    settings["ready"] = json!("notify");
    settings["env"]["PROTEUS_TEST_ADDRESS"] = json!(scene.address(8080));
    settings["listen"] = listen;
    settings
}

fn addresses(scene: &Scene, master: &Master, names: &[&str]) -> Vec<String> {
    let given = names.iter().map(|name| master.address(name).replace("[::]", "127.0.0.1"));
    given.chain([scene.address(8080)]).collect()
}

/// Each worker serves at each address.
#[track_caller]
fn assert_all_serve(addresses: &[String], workers: &BTreeSet<u32>) {
    let expected: BTreeSet<String> = workers.iter().map(|pid| format!("pid={pid}\n")).collect();
    for address in addresses {
        let mut seen = BTreeSet::new();
        wait_until(&format!("all answer at {address}"), || {
            seen.extend(try_get(address, "/").map(|answer| answer.body));
            seen == expected
        });
    }
}

fn tcp_of_every_kind() -> Value {
    json!([
        { "name": "http", "address": "127.0.0.1:0" },
        { "name": "both", "address": "[::]:0" },
        { "name": "slots", "address": "127.0.0.1:0", "reusePort": true },
    ])
}

/// Those who stay hear nothing of it: their socket is the same.
#[test]
fn listen_again_when_a_worker_that_leaves_has_shut_them_down() {
    let scene = Scene::new("dead");
    let master = Master::run(&scene, &settings(&scene, 2, tcp_of_every_kind()));
    let first = master.wait_ready(2);
    let addresses = addresses(&scene, &master, &["http", "both", "slots"]);
    assert_all_serve(&addresses, &first);
    assert_eq!(master.ask("/workers/1/restart").body, "OK");
    for name in ["http", "both", "slots", &scene.address(8080)] {
        let line = master.wait_log(&format!("listener {name}: a worker has shut it down"));
        assert!(line.contains("it listens again"), "{line}");
    }
    assert!(master.has_logged("(shutdown(2)), worker 1 on its way out?"), "{}", master.log_text());
    let second = master.wait_ready(2);
    assert_all_serve(&addresses, &second);
    assert_eq!(first.intersection(&second).count(), 1, "the other one stays: {}", master.log_text());
    assert_eq!(master.ask("/scale?worker=1").body, "OK");
    let last = master.wait_ready(1);
    assert_all_serve(&addresses, &last);
    assert_eq!(master.status()["forks"]["crashes"], 0);
    master.stop(&scene);
}

/// Nobody is left to serve meanwhile: newcomers wait in the queue.
#[test]
fn listen_again_when_the_only_worker_has_crashed_so() {
    let scene = Scene::new("dead-crash");
    let master = Master::run(&scene, &settings(&scene, 1, tcp_of_every_kind()));
    let addresses = addresses(&scene, &master, &["http", "both", "slots"]);
    for crashes in 1..=3 {
        let pid = master.wait_one_ready();
        assert_all_serve(&addresses, &BTreeSet::from([pid]));
        scene.write("crash", "");
        master.wait_status("noticed", |status| status["forks"]["crashes"] == crashes);
    }
    let last = master.wait_ready(1);
    assert_all_serve(&addresses, &last);
    master.stop(&scene);
}

/// A unix socket never listens again: there is a new one, and those who have the old one are replaced.
#[test]
fn of_unix_sockets_are_bound_anew() {
    let scene = Scene::new("dead-unix");
    let listen = json!({ "name": "admin", "address": "unix:admin.sock", "mode": "0660" });
    let master = Master::run(&scene, &settings(&scene, 3, listen));
    master.wait_ready(3);
    assert_eq!(master.ask("/workers/1/restart").body, "OK");
    let line = master.wait_log("listener admin: a worker has shut it down");
    assert!(line.contains("there is a new socket"), "{line}");
    // Also the fourth, which was started with the socket that the first has shut down.
    master.wait_status("all are replaced", |status| {
        rows(status).len() == 3 && rows(status).iter().all(|row| row["id"].as_u64() > Some(4))
    });
    let last = master.wait_ready(3);
    let expected: BTreeSet<String> = last.iter().map(|pid| format!("pid={pid}\n")).collect();
    let mut seen = BTreeSet::new();
    wait_until("all answer", || {
        seen.insert(over_unix(&scene.path("admin.sock"), "GET", "/", "").expect("answered").body);
        seen.is_superset(&expected)
    });
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &scene.path("admin.sock").metadata().expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(master.status()["forks"]["crashes"], 0);
    master.stop(&scene);
    assert!(!scene.path("admin.sock").exists());
}

#[test]
fn that_were_handed_over_listen_again() {
    let scene = Scene::new("dead-adopted");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound").to_string();
    let listen = json!({ "name": "http", "address": address });
    drop(Master::command(&scene, &settings(&scene, 1, listen))); // writes the settings
    let mut command = Command::new("sh");
    let script = "exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" run --config proteus.json";
    command.args(["-c", script]).arg(proteus());
    command.stdin(OwnedFd::from(listener.try_clone().expect("a copy"))).stderr(Stdio::piped());
    let master = Master::start_as_is(&scene, command);
    let first = master.wait_one_ready();
    scene.write("crash", "");
    master.wait_status("noticed", |status| status["forks"]["crashes"] == 1);
    let second = master.wait_one_ready();
    assert_eq!(get(&address, "/").body, format!("pid={second}\n"));
    assert_ne!(first, second);
    master.stop(&scene);
}

/// Shut down again and again: the master keeps its head, and says so a few times.
#[test]
fn are_not_worth_a_busy_loop() {
    let scene = Scene::new("dead-often");
    let master =
        Master::run(&scene, &settings(&scene, 1, json!({ "name": "http", "address": "127.0.0.1:0" })));
    let pid = master.wait_one_ready();
    let socket = match sys::descriptor_of(pid, 3) {
        Ok(socket) => socket,
        Err(error) => return crate::harness::skipped("are_not_worth_a_busy_loop", &error.to_string()),
    };
    let often = Instant::now() + Duration::from_secs(1);
    while Instant::now() < often {
        drop(socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both));
        std::thread::yield_now();
    }
    let said = master.log_lines().iter().filter(|line| line.contains("it listens again")).count();
    assert!((1..=20).contains(&said), "{said} times in a second");
    let address = master.address("http");
    wait_until("it listens, and the worker has waited for it", || {
        try_get(&address, "/").is_ok_and(|answer| answer.body == format!("pid={pid}\n"))
    });
    master.stop(&scene);
}
