//! Listeners that workers ask for, as the page's `app.listen(8080)` does.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::harness::master::{role_settings, shell_settings};
use crate::harness::{Master, Scene, get, wait_until};

fn settings(scene: &Scene, address: &str) -> Value {
    let mut settings = role_settings("asks");
    settings["env"]["PROTEUS_TEST_ADDRESS"] = json!(address);
    settings["canary"] = json!(0);
    settings["listen"] = json!({ "name": "other", "address": scene.address(8081) });
    settings
}

fn restart(master: &Master, id: u64) {
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| {
        status["restart"]["id"] == id && status["restart"]["state"] == "completed"
    });
    master.wait_ready(4);
}

fn names(master: &Master) -> Vec<Value> {
    let status = master.status();
    let listeners = status["listeners"].as_array().expect("a list");
    listeners.iter().map(|listener| listener["address"].clone()).collect()
}

/// The first replacement asks for a listener of its own and fails; nobody else has any use for it.
#[test]
fn what_a_refused_release_alone_asked_for_is_released() {
    let scene = Scene::new("on-demand-refused");
    let address = scene.address(8080);
    let script = format!(
        r#"say() {{ echo "$1" >&$PROTEUS_CHANNEL_FD; }}
        [ $PROTEUS_GENERATION = 1 ] && say '{{"cmd":"PROTEUS_READY"}}' && exec sleep 1000
        say '{{"cmd":"PROTEUS_LISTEN","address":"{address}"}}'
        until [ -e fail ]; do sleep 0.02; done
        exit 7"#
    );
    let mut settings = shell_settings(&script);
    settings["ready"] = json!("notify");
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    master.signal(libc::SIGUSR2);
    wait_until("bound", || TcpStream::connect(&address).is_ok());
    scene.write("fail", "");
    master.wait_status("refused", |status| status["restart"]["state"] == "aborted");
    assert!(names(&master).is_empty());
    wait_until("released", || TcpStream::connect(&address).is_err());
    master.stop(&scene);
}

#[test]
fn shared_by_all_kept_while_wanted_then_released() {
    let scene = Scene::new("on-demand");
    let address = scene.address(8080);
    let master = Master::run(&scene, &settings(&scene, &address));
    master.wait_ready(4);
    let all_answer = || {
        let mut seen = BTreeSet::new();
        wait_until("all four workers answered", || {
            seen.insert(get(&address, "/").body);
            seen.len() == 4
        });
        seen
    };
    let first = all_answer();
    assert_eq!(names(&master), [json!(scene.address(8081)), json!(address)]);
    restart(&master, 1);
    assert!(first.is_disjoint(&all_answer()), "the new ones asked again, and got the same socket");
    scene.write("quiet", "");
    restart(&master, 2);
    wait_until("released", || TcpStream::connect(&address).is_err());
    assert_eq!(names(&master), [json!(scene.address(8081))]);
    std::fs::remove_file(scene.path("quiet")).expect("there");
    restart(&master, 3);
    all_answer();
    master.stop(&scene);
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn port_0_is_one_port_for_all() {
    let scene = Scene::new("on-demand-0");
    let master = Master::run(&scene, &settings(&scene, "127.0.0.1:0"));
    master.wait_ready(4);
    let addresses = names(&master);
    let [_, Value::String(address)] = addresses.as_slice() else { panic!("{addresses:?}") };
    let mut seen = BTreeSet::new();
    wait_until("all four workers answered", || {
        seen.insert(get(address, "/").body);
        seen.len() == 4
    });
    master.stop(&scene);
}

#[test]
fn one_of_the_settings_is_the_same_socket() {
    let scene = Scene::new("on-demand-same");
    let address = scene.address(8081);
    let master = Master::run(&scene, &settings(&scene, &address));
    master.wait_ready(4);
    assert_eq!(names(&master), [json!(address)]);
    get(&address, "/");
    master.stop(&scene);
}

#[test]
fn what_cannot_be_bound_is_refused_and_the_worker_goes_on() {
    let scene = Scene::new("on-demand-refused");
    let held = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = held.local_addr().expect("an address").to_string();
    let master = Master::run(&scene, &settings(&scene, &address));
    let first = master.wait_ready(4);
    for worker in 1..=4 {
        let line = master.wait_log(&format!("worker {worker} was refused"));
        assert!(line.contains(&address) && line.contains("address already in use"), "{line}");
        master.wait_log(&format!("worker {worker} asked to listen"));
    }
    assert_eq!(names(&master), [json!(scene.address(8081))]);
    drop(held);
    restart(&master, 1);
    get(&address, "/");
    assert!(first.is_disjoint(&master.wait_ready(4)));
    assert_eq!(master.status()["forks"]["crashes"], 0);
    master.stop(&scene);
}
