//! Listeners of every kind: bound once by the master, shared by name, given back at the end.

use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::over_unix;
use crate::harness::master::{idle_settings, role_settings, shell_settings};
use crate::harness::{Master, Scene, eventually, get, proc};

fn one_of(role: &str, listen: Value) -> Value {
    let mut settings = role_settings(role);
    settings["worker"] = json!(1);
    settings["listen"] = listen;
    settings["canary"] = json!(0);
    settings
}

/// Who answers a datagram.
fn ask_udp(address: &str) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    socket.send_to(b"who", address.strip_prefix("udp:").expect("a udp address")).expect("sent");
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn every_kind_by_name() {
    let scene = Scene::new("kinds");
    let listen = json!([
        { "name": "dns", "address": "udp:127.0.0.1:0" },
        { "name": "http", "address": "127.0.0.1:0", "backlog": 16 },
        { "name": "admin", "address": "unix:admin.sock", "mode": "0660" },
    ]);
    let master = Master::run(&scene, &one_of("sockets", listen));
    for _ in 0..2 {
        let pid = master.wait_one_ready();
        let body = format!("pid={pid}\n");
        assert_eq!(get(&master.address("http"), "/").body, body);
        assert_eq!(ask_udp(&master.address("dns")), body);
        assert_eq!(over_unix(&scene.path("admin.sock"), "GET", "/", "").expect("answered").body, body);
        assert_eq!(master.address("admin"), "unix:admin.sock");
        let environment = proc::environment(pid);
        assert_eq!(
            (environment["LISTEN_FDS"].as_str(), environment["LISTEN_FDNAMES"].as_str()),
            ("3", "dns:http:admin")
        );
        let addresses: Vec<String> = ["dns", "http"].iter().map(|name| master.address(name)).collect();
        assert!(addresses.iter().all(|address| !address.ends_with(":0")), "real ports: {addresses:?}");
        master.signal(libc::SIGUSR2);
        master.wait_status("another worker", |status| {
            status["workers"].as_array().is_some_and(|rows| rows.iter().all(|row| row["pid"] != pid))
        });
    }
    let mode = std::fs::metadata(scene.path("admin.sock")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    master.stop(&scene);
    assert!(!scene.path("admin.sock").exists());
}

#[test]
fn ipv6() {
    let scene = Scene::new("ipv6");
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let listen = json!([{ "name": "http", "address": "[::1]:0" }]);
    let master = Master::run(&scene, &one_of("service", listen));
    let pid = master.wait_one_ready();
    let address = master.address("http");
    assert!(address.starts_with("[::1]:"), "{address}");
    assert_eq!(get(&address, "/").body, format!("pid={pid}\n"));
    master.stop(&scene);
}

#[test]
fn unnamed_ones_are_numbered() {
    let scene = Scene::new("unnamed");
    let mut settings = idle_settings();
    settings["listen"] =
        json!(["127.0.0.1:0", "udp:127.0.0.1:0", { "name": "x", "address": "127.0.0.1:0" }, "127.0.0.1:0"]);
    let master = Master::run(&scene, &settings);
    let pid = master.wait_one_ready();
    assert_eq!(proc::environment(pid)["LISTEN_FDNAMES"], "listen0:listen1:x:listen3");
    master.stop(&scene);
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let scene = Scene::new("stale");
    drop(UnixListener::bind(scene.path("app.sock")).expect("bound"));
    assert!(UnixStream::connect(scene.path("app.sock")).is_err(), "nobody listens");
    let mut settings = idle_settings();
    settings["listen"] = json!("unix:app.sock");
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    UnixStream::connect(scene.path("app.sock")).expect("the master listens");
    master.stop(&scene);
    assert!(!scene.path("app.sock").exists());
}

#[test]
fn a_unix_socket_that_another_has_replaced_stays() {
    let scene = Scene::new("replaced");
    let mut settings = idle_settings();
    settings["listen"] = json!("unix:app.sock");
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let _another = UnixListener::bind(scene.path("another.sock")).expect("bound");
    std::fs::rename(scene.path("another.sock"), scene.path("app.sock")).expect("there");
    let line = master.wait_log("no longer leads to the cluster's socket");
    let theirs = format!("pid {} listens there", std::process::id());
    assert!(line.contains("app.sock") && line.contains(&theirs), "{line}");
    master.stop(&scene);
    UnixStream::connect(scene.path("app.sock")).expect("it is the other's, and still there");
}

#[test]
fn the_mode_holds_whatever_the_umask() {
    let scene = Scene::new("umask");
    let mut settings = idle_settings();
    settings["listen"] = json!([
        { "name": "open", "address": "unix:open.sock", "mode": "0666" },
        { "name": "closed", "address": "unix:closed.sock", "mode": "0600" },
    ]);
    let run = Master::command(&scene, &settings);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
    let master = Master::start(&scene, command);
    master.wait_one_ready();
    for (name, mode) in [("open.sock", 0o666), ("closed.sock", 0o600)] {
        let metadata = std::fs::metadata(scene.path(name)).expect("there");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    master.stop(&scene);
}

/// While no worker is there, clients queue in the master's socket; once it shuts down, they are refused.
#[test]
fn clients_wait_while_all_workers_are_down() {
    let scene = Scene::new("queue");
    let mut settings = one_of("service", json!({ "name": "http", "address": "127.0.0.1:0" }));
    settings["exec"] = json!(scene.write_program("worker.sh", &worker_script("service")));
    settings["args"] = json!([]);
    settings["backoff"] = json!({ "initial": 20, "max": 20 });
    let master = Master::run(&scene, &settings);
    let pid = master.wait_one_ready();
    let address = master.address("http");
    std::fs::remove_file(scene.path("worker.sh")).expect("there");
    crate::harness::sys::kill(pid, libc::SIGKILL);
    master.wait_log("could not be started");
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || get(&address, "/"))
        })
        .collect();
    scene.write_program("worker.sh", &worker_script("service"));
    let body = format!("pid={}\n", master.wait_one_ready());
    for client in clients {
        assert_eq!(client.join().expect("answered").body, body);
    }
    master.stop(&scene);
    assert!(TcpStream::connect(&address).is_err());
}

fn worker_script(role: &str) -> String {
    let test_binary = std::env::current_exe().expect("the test binary");
    let args = crate::harness::master::ROLE_ARGS.join(" ");
    format!("#!/bin/sh\nPROTEUS_TEST_ROLE={role} exec '{}' {args}\n", test_binary.display())
}

/// The master closes its copies first: a client that comes during the shutdown is refused, not left hanging.
#[test]
fn newcomers_are_refused_once_the_workers_have_closed() {
    let scene = Scene::new("refuses");
    // Closes its listener when told to go, and stays.
    let script = r"trap 'exec 3<&-; : >closed; exec sleep 1000' TERM; : >up; while :; do sleep 0.02; done";
    let mut settings = shell_settings(script);
    settings["listen"] = json!({ "name": "http", "address": "127.0.0.1:0" });
    settings["minUptime"] = json!(20);
    settings["disconnectTimeout"] = json!(600_000);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let address = master.address("http");
    eventually("the script runs", || scene.path("up").exists().then_some(()));
    TcpStream::connect(&address).expect("the socket is open");
    master.signal(libc::SIGTERM);
    eventually("the worker has closed its copy", || scene.path("closed").exists().then_some(()));
    // The child that was asleep in the script has a copy as well, until it wakes.
    eventually("refused", || TcpStream::connect(&address).is_err().then_some(()));
    master.signal(libc::SIGQUIT);
    master.ends_with(&scene, 1);
}
