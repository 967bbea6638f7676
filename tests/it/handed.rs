//! Sockets that systemd, or another master, hands to the master itself.

use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::http::over_unix;
use crate::harness::master::{idle_settings, role_command, role_settings};
use crate::harness::{Master, Scene, eventually, get, proc, proteus, skipped, sys};

/// A master that is born with these sockets, by the names.
fn activated(scene: &Scene, settings: &Value, sockets: &str, names: &str) -> Master {
    drop(Master::command(scene, settings)); // writes the settings
    let mut command = role_command("activate");
    command.env("PROTEUS_TEST_SOCKETS", sockets).env("PROTEUS_TEST_NAMES", names);
    Master::start(scene, command)
}

#[test]
fn adopted_by_name_and_by_address() {
    let scene = Scene::new("handed");
    let mut settings = role_settings("sockets");
    settings["worker"] = json!(2);
    settings["canary"] = json!(0);
    settings["listen"] = json!([
        { "name": "dns", "address": "udp:127.0.0.1:0" },
        { "name": "admin", "address": format!("unix:{}", scene.path("admin.sock").display()) },
        { "name": "http", "address": scene.address(8083) },
    ]);
    let (http, dns) = (scene.address(8080), scene.address(5353));
    let sockets =
        format!("{http} unix:{} udp:{dns} {}", scene.path("admin.sock").display(), scene.address(8082));
    let master = activated(&scene, &settings, &sockets, "http:unknown:dns:nobody");
    master.wait_ready(2);
    assert_eq!(master.address("http"), http, "by name, whatever the address in the settings");
    assert_eq!(master.address("dns"), format!("udp:{dns}"));
    master.wait_log("socket \"nobody\" at ");
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    let workers = master.wait_ready(2);
    assert!(get(&http, "/").body.starts_with("pid="));
    over_unix(&scene.path("admin.sock"), "GET", "/", "").expect("by address");
    for pid in workers {
        let environment = proc::environment(pid);
        assert_eq!(environment["LISTEN_FDNAMES"], "dns:admin:http", "in the order of the settings");
        assert_eq!(environment["LISTEN_PID"], pid.to_string());
    }
    assert!(std::net::TcpStream::connect(scene.address(8082)).is_err(), "nobody's socket is closed");
    master.stop(&scene);
    assert!(scene.path("admin.sock").exists(), "its file belongs to who bound it");
    assert!(UnixStream::connect(scene.path("admin.sock")).is_err());
}

/// `LISTEN_PID` names somebody else: the sockets are not for us.
#[test]
fn what_is_for_another_process_is_left_alone() {
    let scene = Scene::new("handed-not");
    let mut settings = idle_settings();
    settings["listen"] = json!({ "name": "http", "address": "127.0.0.1:0" });
    let mut command = Master::command(&scene, &settings);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "3").env("LISTEN_FDNAMES", "http:b:c");
    let master = Master::start(&scene, command);
    let pid = master.wait_one_ready();
    assert_eq!(proc::environment(pid)["LISTEN_FDS"], "1");
    assert!(!master.has_logged("LISTEN_FDS"), "{}", master.log_text());
    master.stop(&scene);
}

/// `LISTEN_PIDFDID` of systemd 258 and newer: the pid is right, but was another process's when it was written down.
#[test]
fn sockets_for_an_earlier_process_of_the_same_pid_are_left_alone() {
    let Some(_) = sys::own_number() else {
        return skipped("handed-number", "this kernel's processes have no numbers of their own");
    };
    for (number, is_ours) in [("own", true), ("other", false)] {
        let scene = Scene::new("handed-number");
        let mut settings = idle_settings();
        settings["listen"] = json!({ "name": "http", "address": "127.0.0.1:0" });
        drop(Master::command(&scene, &settings)); // writes the settings
        let mut command = role_command("activate");
        command.env("PROTEUS_TEST_SOCKETS", scene.address(8080)).env("PROTEUS_TEST_NAMES", "http");
        command.env("PROTEUS_TEST_NUMBER", number);
        let master = Master::start(&scene, command);
        let worker = proc::environment(master.wait_one_ready());
        assert_eq!(master.address("http") == scene.address(8080), is_ours, "{number}");
        assert!(!worker.contains_key("LISTEN_PIDFDID"), "libsystemd would find no socket there");
        master.stop(&scene);
    }
}

#[test]
fn promised_sockets_that_are_not_there_are_a_start_up_error() {
    let scene = Scene::new("handed-none");
    let config = scene.write("proteus.json", idle_settings().to_string());
    let output = Command::new("sh")
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=3 exec \"$0\" run --config \"$1\""])
        .args([proteus(), config.as_path()])
        .env(proc::TAG, &scene.tag)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let line = "proteus: LISTEN_FDS=3, but not all of the descriptors were passed: bad file descriptor\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), line);
    scene.assert_nothing_left();
}

/// A worker that is a master itself: its own sockets come from the outer one, and so does its end.
#[test]
fn a_master_inside_a_worker() {
    let scene = Scene::new("nested");
    let mut settings = idle_settings();
    settings["exec"] = json!(proteus());
    settings["args"] = json!([
        "run",
        "-n",
        "2",
        "--min-uptime",
        "20ms",
        "--listen",
        "http=127.0.0.1:0",
        "--listen",
        "own=127.0.0.1:0",
        "--",
        "sleep",
        "1000",
    ]);
    settings["listen"] = json!({ "name": "http", "address": "127.0.0.1:0" });
    let master = Master::run(&scene, &settings);
    let inner = master.wait_one_ready();
    let workers = eventually("the inner workers", || {
        let workers = proc::children(inner);
        let run =
            |pid: &u32| proc::open_files(*pid).contains_key(&5) && !proc::open_files(*pid).contains_key(&6);
        (workers.len() == 2 && workers.iter().all(run)).then_some(workers)
    });
    let outer = proc::environment(inner);
    assert_eq!((outer["LISTEN_FDS"].as_str(), outer["PROTEUS_CHANNEL_FD"].as_str()), ("1", "4"));
    for pid in workers {
        let own = proc::environment(pid);
        assert_eq!((own["LISTEN_FDS"].as_str(), own["LISTEN_FDNAMES"].as_str()), ("2", "http:own"));
        assert_eq!((own["LISTEN_PID"].clone(), own["PROTEUS_CHANNEL_FD"].as_str()), (pid.to_string(), "5"));
        assert!(own["NOTIFY_SOCKET"].starts_with(&format!("@proteus/{inner}/")), "{own:?}");
        assert_eq!(proc::open_files(pid)[&3], proc::open_files(inner)[&3], "one socket for all");
    }
    master.stop(&scene);
}
