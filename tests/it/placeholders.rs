//! `{slot}`, `{id}`, `{generation}` and `{port}` in the workers' arguments and environment.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::master::rows;
use crate::harness::tools::in_path;
use crate::harness::{Master, Scene, proc, skipped, try_get, wait_until};

fn ports(status: &Value) -> BTreeSet<u64> {
    rows(status).iter().filter_map(|row| row["port"].as_u64()).collect()
}

#[test]
fn each_worker_has_its_own() {
    let scene = Scene::new("placeholders");
    let settings = json!({
        "worker": 2,
        "exec": "sh",
        "args": ["-c", "exec sleep 1000", "{slot}/{id}/{generation}", "{{slot}} ${id} {other}", "{\"json\":{slot}}"],
        "env": { "WHO": "{id} in {slot}", "LITERAL": "{{port}}" },
        "minUptime": 20,
        "canary": 0,
    });
    let mut command = Master::command(&scene, &settings);
    command.env("INHERITED", "{slot} stays");
    let master = Master::start(&scene, command);
    master.wait_ready(2);
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    for pid in master.wait_ready(2) {
        let found = proc::environment(pid);
        let (id, slot) = (&found["PROTEUS_WORKER_ID"], &found["PROTEUS_SLOT"]);
        assert_eq!(found["WHO"], format!("{id} in {slot}"));
        assert_eq!((found["LITERAL"].as_str(), found["INHERITED"].as_str()), ("{port}", "{slot} stays"));
        wait_until("the shell has become a sleep", || proc::command(pid).starts_with("sleep"));
    }
    assert!(ports(&master.status()).is_empty(), "nobody asked for a port");
    master.stop(&scene);
}

#[test]
fn arguments_are_filled_in() {
    let scene = Scene::new("placeholder-args");
    let settings = json!({
        "worker": 1,
        "exec": "sh",
        "args": ["-c", "id=shell; echo \"$0 $1 $2 ${id}\" >said; mv said seen; exec sleep 1000",
            "{slot}/{id}/{generation}", "{{slot}} {other}", "{\"json\":{slot}}"],
        "minUptime": 20,
    });
    let master = Master::run(&scene, &settings);
    wait_until("it has said so", || scene.path("seen").exists());
    let seen = std::fs::read_to_string(scene.path("seen")).expect("there");
    assert_eq!(seen, "0/1/1 {slot} {other} {\"json\":0} shell\n");
    master.stop(&scene);
}

/// A program that can only bind a number, as the README has it.
#[test]
fn a_port_for_each_worker() {
    if in_path("python3").is_none() {
        return skipped("a_port_for_each_worker", "there is no python3 here");
    }
    let scene = Scene::new("placeholder-port");
    let settings = json!({
        "worker": 2,
        "exec": "python3",
        "args": ["-m", "http.server", "{port}", "--bind", "127.0.0.1"],
        "env": { "PORT": "{port}" },
        "minUptime": 100,
        "canary": 0,
    });
    let master = Master::run(&scene, &settings);
    let serve = |ports: &BTreeSet<u64>| {
        for port in ports {
            let address = format!("127.0.0.1:{port}");
            wait_until("it serves there", || try_get(&address, "/").is_ok_and(|answer| answer.status == 200));
        }
    };
    for pid in master.wait_ready(2) {
        let port: u64 = proc::environment(pid)["PORT"].parse().expect("a number");
        assert!(ports(&master.status()).contains(&port));
    }
    let first = ports(&master.status());
    assert_eq!(first.len(), 2, "two different ones");
    serve(&first);
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    master.wait_ready(2);
    let second = ports(&master.status());
    assert!(second.len() == 2 && first.is_disjoint(&second), "{first:?} {second:?}");
    serve(&second);
    master.stop(&scene);
}
