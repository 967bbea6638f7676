//! `reusePort`: a socket for each slot, which the slot's next worker inherits with all that waits in it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::try_get;
use crate::harness::load::{Client, Connections, Load};
use crate::harness::master::{role_settings, rows};
use crate::harness::{Master, Scene, get, proc, record, sample_or_full, sys, wait_until};

fn settings(role: &str, workers: usize) -> Value {
    let mut settings = role_settings(role);
    settings["worker"] = json!(workers);
    settings["listen"] = json!({ "name": "http", "address": "127.0.0.1:0", "reusePort": true });
    settings["canary"] = json!(0);
    settings["minUptime"] = json!(0);
    settings
}

/// The socket of each slot, as the kernel names it.
fn sockets(master: &Master) -> Vec<String> {
    let mut slots: Vec<(u64, String)> = rows(&master.status())
        .iter()
        .map(|row| {
            let pid = u32::try_from(row["pid"].as_u64().expect("a pid")).expect("a pid");
            (row["slot"].as_u64().expect("a slot"), proc::open_files(pid)[&3].clone())
        })
        .collect();
    slots.sort();
    slots.into_iter().map(|(_, socket)| socket).collect()
}

#[test]
fn each_slot_keeps_its_own_socket() {
    let scene = Scene::new("slot-sockets");
    let master = Master::run(&scene, &settings("service", 3));
    let first = master.wait_ready(3);
    let of_the_slots = sockets(&master);
    assert_eq!(of_the_slots.iter().collect::<BTreeSet<_>>().len(), 3, "{of_the_slots:?}");
    let address = master.address("http");
    let mut seen = BTreeSet::new();
    wait_until("every slot gets connections", || {
        seen.insert(get(&address, "/").body);
        seen.len() == 3
    });
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    let second = master.wait_ready(3);
    assert!(first.is_disjoint(&second));
    assert_eq!(sockets(&master), of_the_slots, "after a restart");
    sys::kill(*second.first().expect("three"), libc::SIGKILL);
    master.wait_status("replaced", |status| status["forks"]["crashes"] == 1);
    master.wait_ready(3);
    assert_eq!(sockets(&master), of_the_slots, "after a crash");
    master.stop(&scene);
}

/// Connections that nobody has accepted, and their requests.
fn queue(address: &str, count: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(address).expect("queued");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        stream
    };
    (0..count).map(connect).collect()
}

#[track_caller]
fn answers(connections: Vec<TcpStream>) -> BTreeSet<String> {
    let read = |mut stream: TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered, not reset");
        text.rsplit("\r\n").next().expect("a body").trim().to_owned()
    };
    connections.into_iter().map(read).collect()
}

fn signal_all(pids: &BTreeSet<u32>, signal: i32) {
    for pid in pids {
        sys::kill(*pid, signal);
    }
}

/// Nobody accepts in the first generation; all that came meanwhile is the successors'.
#[test]
fn what_waits_on_a_slot_is_served_by_the_successor() {
    for ending in ["crash", "restart"] {
        let scene = Scene::new("slot-queue");
        let master = Master::run(&scene, &settings("late", 2));
        let first = master.wait_ready(2);
        let connections = queue(&master.address("http"), 60);
        if ending == "crash" {
            // Stopped first, so that neither sees that their successors may go.
            signal_all(&first, libc::SIGSTOP);
            wait_until("stopped", || first.iter().all(|pid| proc::state(*pid) == Some('T')));
            scene.write("go", "");
            signal_all(&first, libc::SIGKILL);
        } else {
            master.signal(libc::SIGUSR2);
            master.wait_status("restarted", |status| {
                status["restart"]["state"] == "completed" && rows(status).len() == 2
            });
            scene.write("go", "");
        }
        let answered = answers(connections);
        let second = master.wait_ready(2);
        assert!(first.is_disjoint(&second), "{ending}");
        let expected: BTreeSet<String> = second.iter().map(|pid| format!("pid={pid}")).collect();
        assert_eq!(answered, expected, "{ending}: both queues held some");
        master.stop(&scene);
    }
}

/// How many restarts: `PROTEUS_SOAK` in full, a sample without.
fn restarts() -> u64 {
    if std::env::var_os("PROTEUS_SOAK").is_some() { 200 } else { 8 }
}

#[test]
fn no_request_is_lost_over_restarts() {
    let scene = Scene::new("slot-restarts");
    let master = Master::run(&scene, &settings("service", 2));
    master.wait_ready(2);
    let address = master.address("http");
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop, served) = (address.clone(), Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match try_get(&address, "/") {
                        Ok(answer) if answer.status == 200 => drop(served.fetch_add(1, Ordering::Relaxed)),
                        other => lost.push(format!("{other:?}")),
                    }
                }
                lost
            })
        })
        .collect();
    for id in 1..=restarts() {
        let before = served.load(Ordering::Relaxed);
        wait_until("requests are served", || served.load(Ordering::Relaxed) > before + 20);
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
    }
    stop.store(true, Ordering::Relaxed);
    let lost: Vec<String> = clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), served.load(Ordering::Relaxed));
    master.assert_no_zombies();
    master.stop(&scene);
}

/// Nobody is left waiting on the socket of a slot that goes, and nobody is sent there.
#[test]
fn scaling_resets_nothing() {
    let scene = Scene::new("slot-scale");
    let mut settings = settings("threads", 2);
    settings["disconnectTimeout"] = json!(20_000);
    let master = Master::run(&scene, &settings);
    master.wait_ready(2);
    let address = master.address("http");
    let descriptors = proc::descriptors(master.pid());
    let load = Load::begin(&address, Connections::New, 4);
    let count = sample_or_full(3, 60);
    for _ in 0..count {
        for workers in [4, 1, 3, 2] {
            assert_eq!(master.ask(&format!("/scale?worker={workers}")).body, "OK");
            master.wait_ready(workers);
        }
    }
    let ledger = load.end();
    record("slot-scale", format_args!("{count} sweeps, {ledger}"));
    ledger.assert_lossless();
    assert_eq!(sockets(&master).iter().collect::<BTreeSet<_>>().len(), 2, "each has its own");
    assert_eq!(master.status()["forks"]["crashes"], 0);
    assert!(!master.has_logged("cannot be kept from"), "{}", master.log_text());
    wait_until("descriptors as before", || proc::descriptors(master.pid()) <= descriptors);
    master.stop(&scene);
}

/// What waits on a slot that goes is served by its worker before that is told to go.
#[test]
fn a_slot_that_goes_is_emptied_first() {
    let scene = Scene::new("slot-drain");
    let mut settings = settings("late", 2);
    settings["disconnectTimeout"] = json!(20_000);
    let master = Master::run(&scene, &settings);
    let both = master.wait_ready(2);
    let connections = queue(&master.address("http"), 60);
    assert_eq!(master.ask("/scale?worker=1").body, "OK");
    master.wait_status("one is wanted", |status| status["master"]["workers"] == 1);
    let later = queue(&master.address("http"), 20);
    scene.write("go", "");
    let expected: BTreeSet<String> = both.iter().map(|pid| format!("pid={pid}")).collect();
    assert_eq!(answers(connections), expected, "both queues held some");
    let left = master.wait_ready(1);
    let left: BTreeSet<String> = left.iter().map(|pid| format!("pid={pid}")).collect();
    assert_eq!(answers(later), left, "those that came after the order");
    master.stop(&scene);
}

#[test]
fn nobody_is_sent_to_a_slot_that_waits_for_its_next_worker() {
    let scene = Scene::new("slot-backoff");
    let mut settings = settings("threads", 2);
    settings["minUptime"] = json!(60_000);
    settings["backoff"] = json!({ "initial": 3000, "max": 3000 });
    let master = Master::run(&scene, &settings);
    master.wait_ready(2);
    for crashes in 1..=2 {
        let victim = rows(&master.status())[0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        sys::kill(victim.expect("a pid"), libc::SIGKILL);
        // The first is replaced at once, the second failure in a row waits.
        master.wait_status("noticed", |status| {
            status["forks"]["crashes"] == crashes && (crashes == 2 || rows(status)[0]["state"] == "ready")
        });
    }
    master.wait_status("it waits", |status| rows(status)[0]["state"] == "backoff");
    let address = master.address("http");
    let mut client = Client::new(&address, Connections::New).with_limit(Duration::from_secs(1));
    for _ in 0..200 {
        client.request();
    }
    assert_eq!(rows(&master.status())[0]["state"], "backoff", "all within its delay");
    client.ledger.assert_lossless();
    assert_eq!(client.ledger.by_worker.len(), 1);
    master.wait_ready(2);
    wait_until("both serve again", || {
        let mut client = Client::new(&address, Connections::New);
        (0..50).for_each(|_| client.request());
        client.ledger.by_worker.len() == 2
    });
    master.stop(&scene);
}
