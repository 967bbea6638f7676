//! How workers share the connections of one listener: evenly, and leaving none behind when they leave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::load::{Client, Connections};
use crate::harness::master::role_settings;
use crate::harness::{Master, Scene, record, sample_or_full, sys};

const WORKERS: usize = 4;

/// An answer takes a millisecond or, on a busy machine, a second. A stranded connection waits for the next one,
/// which does not come before its own answer, or for a new worker, and the restart has brought its last.
const STRANDED: Duration = Duration::from_secs(5);

/// Connections one after another; between them all workers are idle.
fn shared_evenly(name: &str, role: &str) {
    let scene = Scene::new(name);
    let master = Master::run(&scene, &role_settings(role));
    master.wait_ready(WORKERS);
    let mut client = Client::new(&master.address("http"), Connections::New);
    for _ in 0..400 {
        client.request();
        std::thread::park_timeout(Duration::from_millis(1));
    }
    record(name, &client.ledger);
    client.ledger.assert_lossless();
    let shares: Vec<u64> = client.ledger.by_worker.values().copied().collect();
    assert_eq!(shares.len(), WORKERS, "{shares:?}");
    assert!(shares.iter().all(|share| (50..=150).contains(share)), "{shares:?}");
    master.stop(&scene);
}

#[test]
fn evenly() {
    shared_evenly("share", "plain");
}

#[test]
fn evenly_on_a_non_blocking_listener() {
    shared_evenly("share-nonblocking", "plain:nonblocking");
}

/// Workers leave all the time, and every connection comes alone: nobody else's wakes a worker for it.
fn none_stranded(name: &str, role: &str) {
    let scene = Scene::new(name);
    let mut settings = role_settings(role);
    settings["canary"] = json!(0);
    settings["surge"] = json!(WORKERS);
    let master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let mut client = Client::new(&master.address("http"), Connections::New).with_limit(STRANDED);
    let restarts = sample_or_full(40, 2000);
    for id in 1..=restarts {
        master.signal(libc::SIGUSR2);
        let mut over = false;
        while !over {
            for _ in 0..20 {
                client.request();
            }
            let status = master.status();
            over = status["restart"]["id"] == id && status["restart"]["state"] == "completed";
        }
    }
    record(name, format_args!("{restarts} restarts, {}", client.ledger));
    client.ledger.assert_lossless();
    master.stop(&scene);
}

#[test]
fn none_is_left_to_a_worker_that_leaves() {
    none_stranded("stranded", "plain");
}

#[test]
fn none_is_left_to_a_worker_that_leaves_a_non_blocking_listener() {
    none_stranded("stranded-nonblocking", "plain:nonblocking");
}

/// Who was in the queue when the last worker is told to leave has waited long enough.
fn queue_is_served_at_a_shutdown(name: &str, role: &str) {
    let scene = Scene::new(name);
    let mut settings = role_settings(role);
    settings["worker"] = json!(1);
    let mut master = Master::run(&scene, &settings);
    let workers = master.wait_ready(1);
    let address = master.address("http");
    // A stopped worker accepts nothing; the master continues it when it tells it to leave.
    for pid in workers {
        sys::kill(pid, libc::SIGSTOP);
    }
    let mut clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // During the first one's work the worker is told to leave.
        let path = if number == 0 { "/slow" } else { "/" };
        write!(client, "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    }
    master.signal(libc::SIGTERM);
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("pid="), "{answer:?}");
    }
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

#[test]
fn the_queue_is_served_at_a_shutdown() {
    queue_is_served_at_a_shutdown("queue", "plain");
}

#[test]
fn the_queue_of_a_non_blocking_listener_is_served_at_a_shutdown() {
    queue_is_served_at_a_shutdown("queue-nonblocking", "plain:nonblocking");
}
