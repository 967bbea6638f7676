//! The walk through the page that this project reimagines: start, restart, shut down, force, give up.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::http::{Answer, try_get};
use crate::harness::master::{ROLE_ARGS, ready_pids, role_settings, rows};
use crate::harness::{Master, Scene, eventually, get, wait_until};

#[test]
fn four_workers_through_one_port_and_usr2_replaces_every_pid() {
    let scene = Scene::new("walk");
    let mut settings = role_settings("service");
    settings["pid"] = json!(scene.path("proteus.pid"));
    settings["disconnectTimeout"] = json!(5000);
    settings["maxForkCount"] = json!(30);
    settings["canary"] = json!(50);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(4);
    let address = master.address("http");
    let mut seen = BTreeSet::new();
    wait_until("all four workers answered", || {
        seen.insert(get(&address, "/").body);
        seen.len() == 4
    });
    assert_eq!(std::fs::read_to_string(scene.path("proteus.pid")).unwrap(), format!("{}\n", master.pid()));
    master.signal(libc::SIGUSR2);
    master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
    let second = master.wait_ready(4);
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    master.stop(&scene);
    assert!(!scene.path("proteus.pid").exists());
}

/// The page's own settings, as it spells them; `exec` is a script in the place of its `worker.js`.
fn settings_of_the_page(scene: &Scene) -> Value {
    let test_binary = std::env::current_exe().expect("the test binary");
    let script = format!(
        "#!/bin/sh\nPROTEUS_TEST_ARGS=\"$*\" exec '{}' {}\n",
        test_binary.display(),
        ROLE_ARGS.join(" ")
    );
    scene.write_program("worker.sh", &script);
    json!({
        "worker": 4,
        "pid": scene.path("proteus.pid"),
        "exec": "./worker.sh",
        "args": ["-c", "config.json"],
        "disconnectTimeout": 5000,
        "maxForkCount": 30,
        "api": { "listen": "0.0.0.0", "port": 0 },
        "env": { "PROTEUS_TEST_ROLE": "page", "PROTEUS_TEST_ADDRESS": scene.address(8080) },
        "canary": 50,
    })
}

/// The page's API: over TCP, on the port that the master says it has.
struct Api(String);

impl Api {
    fn of(master: &Master) -> Self {
        let line = master.wait_log("API on 0.0.0.0:");
        let port = line.split("API on 0.0.0.0:").nth(1).and_then(|rest| rest.split(';').next());
        Api(format!("127.0.0.1:{}", port.expect("a port")))
    }

    fn ask(&self, path: &str) -> Answer {
        get(&self.0, path)
    }

    fn wait_pids(&self, what: &str, condition: impl Fn(&Value) -> bool) -> BTreeSet<u32> {
        eventually(what, || {
            let status: Value = serde_json::from_str(&self.ask("/status").body).expect("JSON");
            let settled = rows(&status).len() == 4 && ready_pids(&status).len() == 4;
            (settled && condition(&status)).then(|| ready_pids(&status))
        })
    }
}

fn ok() -> Answer {
    Answer { status: 200, body: "OK".into() }
}

#[test]
fn the_page_as_it_is_written() {
    let scene = Scene::new("page");
    let mut master = Master::run(&scene, &settings_of_the_page(&scene));
    let address = scene.address(8080);
    let api = Api::of(&master);
    master.wait_log("has no token"); // 0.0.0.0 is the page's own example, and a loud warning here
    let first = api.wait_pids("four workers", |_| true);
    assert_eq!(get(&address, "/args").body, "-c config.json");
    let mut seen = BTreeSet::new();
    wait_until("all four workers answered", || {
        seen.insert(get(&address, "/").body);
        seen.len() == 4
    });

    master.signal(libc::SIGUSR2);
    let restarted =
        |id| move |status: &Value| status["restart"]["id"] == id && status["restart"]["state"] == "completed";
    let second = api.wait_pids("restarted by signal", restarted(1));
    assert_eq!(api.ask("/restart"), ok());
    let third = api.wait_pids("restarted over HTTP", restarted(2));
    assert!(first.is_disjoint(&second) && second.is_disjoint(&third) && first.is_disjoint(&third));
    assert_eq!(api.ask("/nonsense"), Answer { status: 404, body: "NOT FOUND".into() });

    let slow = std::thread::spawn({
        let address = address.clone();
        move || get(&address, "/slow")
    });
    master.wait_log("works on a slow request");
    master.signal(libc::SIGINT);
    assert_eq!(slow.join().expect("answered").status, 200);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    assert!(!scene.path("proteus.pid").exists());
    scene.assert_nothing_left();
    assert!(try_get(&address, "/").is_err(), "the port is free again");
}

#[test]
fn shutdown_over_http() {
    let scene = Scene::new("page-shutdown");
    let master = Master::run(&scene, &settings_of_the_page(&scene));
    let api = Api::of(&master);
    api.wait_pids("four workers", |_| true);
    assert_eq!(api.ask("/shutdown"), ok());
    master.ends_with(&scene, 0);
    assert!(!scene.path("proteus.pid").exists());
}

#[test]
fn a_worker_that_dies_at_once_ends_the_cluster_after_max_fork_count() {
    let scene = Scene::new("page-gives-up");
    let mut settings = settings_of_the_page(&scene);
    scene.write_program("worker.sh", "#!/bin/sh\necho $$ >>births\nexit 1\n");
    settings["backoff"] = json!({ "initial": 1, "max": 20 });
    let mut master = Master::run(&scene, &settings);
    assert_eq!(master.wait_exit().code(), Some(3), "{}", master.log_text());
    let said = master.wait_log("giving up");
    assert!(said.contains("30 crash replacements (maxForkCount)"), "{said}");
    let births = std::fs::read_to_string(scene.path("births")).expect("workers were born");
    assert_eq!(births.lines().count(), 4 + 30, "{}", master.log_text());
    assert!(!scene.path("proteus.pid").exists());
    scene.assert_nothing_left();
}
