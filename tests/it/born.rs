//! Who is a worker, and who is not.

use serde_json::json;

use crate::harness::master::role_settings;
use crate::harness::{Master, Scene, eventually, get, proc, proteus};

#[test]
fn a_workers_children_are_never_mistaken_for_workers() {
    let scene = Scene::new("family");
    let master = Master::run(&scene, &role_settings("family"));
    master.wait_ready(4);
    assert_eq!(master.status()["forks"]["crashes"], 0, "{}", master.log_text());
    master.stop(&scene);
}

#[test]
fn a_cluster_inside_a_worker() {
    let scene = Scene::new("nested");
    let mut inner = role_settings("service");
    inner["worker"] = json!(2);
    let inner = scene.write("inner.json", inner.to_string());
    let outer = json!({
        "worker": 1,
        "exec": proteus(),
        "args": ["run", "--config", inner],
        "listen": { "name": "http", "address": "127.0.0.1:0" },
        "minUptime": 200,
        "canary": 20,
    });
    let master = Master::run(&scene, &outer);
    let address = master.address("http");
    let first = *master.wait_ready(1).first().unwrap();
    let workers = inner_workers(first);
    for pid in &workers {
        let environment = own_environment(*pid);
        for key in ["PROTEUS_WORKER_ID=", "PROTEUS_CHANNEL_FD=", "NOTIFY_SOCKET=", "LISTEN_PID="] {
            assert_eq!(environment.split('\0').filter(|pair| pair.starts_with(key)).count(), 1, "{key}");
        }
        assert!(environment.contains(&format!("NOTIFY_SOCKET=@proteus/{first}/")), "the inner master's");
    }
    let answer = get(&address, "/").body;
    assert!(workers.iter().any(|pid| answer == format!("pid={pid}\n")), "{answer} {workers:?}");
    master.signal(libc::SIGUSR2);
    master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
    let second = *master.wait_ready(1).first().unwrap();
    assert!(!proc::is_alive(first) && workers.iter().all(|pid| !proc::is_alive(*pid)));
    let workers = inner_workers(second);
    let answer = get(&address, "/").body;
    assert!(workers.iter().any(|pid| answer == format!("pid={pid}\n")), "{answer} {workers:?}");
    master.wait_log("worker 1 (slot 0) has left: exit status 0");
    master.stop(&scene);
}

/// The environment of a worker with listeners, once it has one: before its exec it shows its master's.
fn own_environment(pid: u32) -> String {
    let own = format!("LISTEN_PID={pid}\0");
    eventually("an environment of its own", || {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        Some(String::from_utf8_lossy(&environment).into_owned()).filter(|text| text.contains(&own))
    })
}

/// Both workers of the inner master.
fn inner_workers(master: u32) -> Vec<u32> {
    eventually("two inner workers", || Some(proc::children(master)).filter(|pids| pids.len() == 2))
}
