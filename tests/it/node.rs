//! Node programs as workers, unmodified: they speak to this master as to Node's own.

use std::ffi::OsString;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::master::{role_command, rows};
use crate::harness::tools::{in_path, with_each_node};
use crate::harness::{Master, Scene, eventually, get, proc, skipped, sys, wait_until};

const PROGRAM: &str = include_str!("programs/worker.js");

/// Settings of workers that run the program in one of its modes.
fn settings(scene: &Scene, workers: usize, args: &[&str]) -> Value {
    scene.write("worker.js", PROGRAM);
    json!({ "worker": workers, "exec": "worker.js", "args": args, "canary": 0, "minUptime": 600_000 })
}

fn run(scene: &Scene, path: &OsString, settings: &Value) -> Master {
    let mut command = Master::command(scene, settings);
    command.env("PATH", path);
    Master::start(scene, command)
}

fn host(scene: &Scene) -> String {
    scene.address(0).split(':').next().expect("a host").to_owned()
}

/// What a worker has written, once it has.
fn written(scene: &Scene, name: &str) -> Value {
    let text = eventually(name, || std::fs::read_to_string(scene.path(name)).ok());
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_exact_environment_and_descriptors() {
    with_each_node("the_exact_environment_and_descriptors", |path| {
        let scene = Scene::new("node-environment");
        let mut settings = settings(&scene, 1, &["serve", &host(&scene), "8080"]);
        settings["listen"] = json!({ "name": "web", "address": scene.address(8081) });
        let mut command = Master::command(&scene, &settings);
        command.env("PATH", path);
        for leaked in ["PROTEUS_CHANNEL_FD", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID"] {
            command.env(leaked, "7");
        }
        let master = Master::start(&scene, command);
        let pid = master.wait_one_ready();
        let mut expected = proc::environment(master.pid());
        expected
            .retain(|key, _| !["PROTEUS_CHANNEL_FD", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID"].contains(&&**key));
        let pid_text = pid.to_string();
        let own = [
            ("PROTEUS_WORKER_ID", "1"),
            ("PROTEUS_SLOT", "0"),
            ("PROTEUS_GENERATION", "1"),
            ("NODE_CHANNEL_FD", "4"),
            ("NODE_CHANNEL_SERIALIZATION_MODE", "json"),
            ("NODE_UNIQUE_ID", "1"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", &pid_text),
            ("LISTEN_FDNAMES", "web"),
        ];
        expected.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let mut found = proc::environment(pid);
        assert!(found.remove("NOTIFY_SOCKET").is_some());
        assert_eq!(found, expected);
        let files = proc::open_files(pid);
        assert_eq!(files[&0], "/dev/null");
        assert!(files[&3].starts_with("socket:") && files[&4].starts_with("socket:"), "{files:?}");
        master.stop(&scene);
    });
}

/// TCP by number, name and version, port 0, unix paths, UDP, a listener of the settings; and what cannot be had.
#[test]
fn every_form_of_listen() {
    with_each_node("every_form_of_listen", |path| {
        let scene = Scene::new("node-listen");
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let taken_udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let (taken_port, taken_udp_port) =
            (taken.local_addr().expect("bound").port(), taken_udp.local_addr().expect("bound").port());
        let free = TcpListener::bind("[::]:0").expect("IPv6").local_addr().expect("bound").port();
        let host = host(&scene);
        let forms = json!({
            "any": { "listen": [free] },
            "twice": { "listen": [free] },
            "four": { "listen": [8080, host] },
            "configured": { "listen": [8081, host] },
            "descriptor": { "listen": [{ "fd": 4 }] },
            "no descriptor": { "listen": [{ "fd": 99 }] },
            "six": { "listen": [{ "port": 0, "host": "::1", "ipv6Only": true }] },
            "zero": { "listen": [0, "127.0.0.1"] },
            "zero again": { "listen": [0, "127.0.0.1"] },
            "path": { "listen": ["relative.sock"] },
            "udp": { "udp": "udp4", "bind": { "port": 0, "address": "127.0.0.1" } },
            "udp6": { "udp": "udp6", "bind": { "port": 0, "address": "::1" } },
            "taken": { "listen": [taken_port, "127.0.0.1"] },
            "taken udp": { "udp": "udp4", "bind": { "port": taken_udp_port, "address": "127.0.0.1" } },
            "foreign": { "listen": [8080, "203.0.113.1"] },
            "long path": { "listen": [format!("/tmp/{}", "x".repeat(120))] },
        });
        let mut settings = settings(&scene, 2, &["listens", &forms.to_string()]);
        settings["listen"] = json!([scene.address(8081), scene.address(8082)]);
        let master = run(&scene, path, &settings);
        let found = [written(&scene, "listens-1"), written(&scene, "listens-2")];
        for (worker, found) in (1..).zip(&found) {
            assert_eq!((&found["id"], &found["connected"]), (&json!(worker), &json!(true)));
            let expected = [
                ("any", format!(":: {free}")),
                ("four", format!("{host} 8080")),
                ("configured", format!("{host} 8081")),
                ("twice", "EADDRINUSE".into()),
                ("descriptor", format!("{host} 8082")),
                ("no descriptor", "EINVAL".into()),
                ("taken", "EADDRINUSE".into()),
                ("taken udp", "EADDRINUSE".into()),
                ("foreign", "EADDRNOTAVAIL".into()),
            ];
            for (form, outcome) in expected {
                assert_eq!(found[form], outcome, "{form} in {found}\n{}", master.log_text());
            }
            assert!(found["path"].as_str().is_some_and(|path| path.ends_with("relative.sock")), "{found}");
            assert!(found["long path"].as_str().is_some_and(|code| code.starts_with('E')), "{found}");
        }
        assert_ne!(found[0]["zero"], found[0]["zero again"]);
        for port_0 in ["six", "zero", "zero again", "udp", "udp6"] {
            assert_eq!(found[0][port_0], found[1][port_0], "one port for all");
        }
        assert!(std::fs::metadata(scene.path("relative.sock")).is_ok());
        master.stop(&scene);
        assert!(!scene.path("relative.sock").exists(), "removed with the master");
    });
}

#[test]
fn listening_is_ready_and_asking_to_listen_is_waited_for() {
    with_each_node("listening_is_ready", |path| {
        let scene = Scene::new("node-ready");
        let settings = settings(&scene, 1, &["late", &host(&scene), "8080"]);
        let master = run(&scene, path, &settings);
        master.wait_status("it starts", |status| {
            rows(status).first().is_some_and(|row| row["pid"].is_number())
        });
        for _ in 0..3 {
            assert_eq!(rows(&master.status())[0]["state"], "starting");
        }
        scene.write("go", "");
        let pid = master.wait_one_ready();
        assert_eq!(get(&scene.address(8080), "/").body, format!("pid={pid}\n"));
        master.stop(&scene);
    });
}

/// The habit of workers under other masters; and one that never says a word is ready by its age.
#[test]
fn the_bare_word_ready_counts_too() {
    with_each_node("the_bare_word_ready", |path| {
        for (args, min_uptime, messages) in [(["says", "\"ready\""], 600_000, 1), (["idle", ""], 20, 0)] {
            let scene = Scene::new("node-says-ready");
            let mut settings = settings(&scene, 1, &args);
            settings["minUptime"] = json!(min_uptime);
            let master = run(&scene, path, &settings);
            master.wait_one_ready();
            assert_eq!(rows(&master.status())[0]["messagesIn"], messages);
            master.stop(&scene);
        }
    });
}

/// Node's disconnect and no signal: the request in hand is answered, by old workers and by the last ones.
#[test]
fn told_to_go_it_finishes_the_work_in_hand() {
    with_each_node("told_to_go", |path| {
        let scene = Scene::new("node-goes");
        let address = scene.address(8080);
        let settings = settings(&scene, 1, &["torn", &host(&scene), "8080"]);
        let master = run(&scene, path, &settings);
        let ask_slowly = |pid: u32| {
            let address = address.clone();
            let asked = std::thread::spawn(move || get(&address, "/slow").body);
            master.wait_log(&format!("pid {pid} works on a slow request"));
            asked
        };
        let first = master.wait_one_ready();
        let asked = ask_slowly(first);
        master.signal(libc::SIGUSR2);
        assert_eq!(asked.join().expect("answered"), format!("pid={first}\n"));
        let second = eventually("the second", || Some(master.wait_one_ready()).filter(|pid| *pid != first));
        let asked = ask_slowly(second);
        master.signal(libc::SIGTERM);
        assert_eq!(asked.join().expect("answered"), format!("pid={second}\n"));
        master.ends_with(&scene, 0);
        assert!(!scene.path("signalled").exists() && scene.path("disconnected").exists());
    });
}

#[test]
fn one_that_never_listened_is_told_by_the_stop_signal() {
    with_each_node("one_that_never_listened", |path| {
        let scene = Scene::new("node-never");
        let mut settings = settings(&scene, 1, &["idle"]);
        settings["minUptime"] = json!(300); // beyond the time in which a worker may still say hello
        settings["disconnectTimeout"] = json!(600_000);
        let master = run(&scene, path, &settings);
        master.wait_one_ready();
        master.signal(libc::SIGTERM);
        master.wait_log("has left: signal 15");
        master.ends_with(&scene, 0);
    });
}

/// `worker.disconnect()` in the worker: planned, and replaced at once.
#[test]
fn leaving_by_its_own_wish_is_no_crash() {
    with_each_node("leaving_by_its_own_wish", |path| {
        let scene = Scene::new("node-leaves");
        let settings = settings(&scene, 1, &["leaves", &host(&scene), "8080"]);
        let master = run(&scene, path, &settings);
        let first = master.wait_one_ready();
        scene.write("leave", "");
        let second = eventually("the second", || Some(master.wait_one_ready()).filter(|pid| *pid != first));
        assert_eq!(get(&scene.address(8080), "/").body, format!("pid={second}\n"));
        let status = master.status();
        assert_eq!((&status["forks"]["crashes"], &status["forks"]["planned"]), (&json!(0), &json!(1)));
        let last = &rows(&status)[0]["lastExit"];
        assert_eq!((&last["cause"], &last["code"]), (&json!("stopped"), &json!(0)));
        assert!(master.has_logged("worker 1 (slot 0) leaves by its own wish; respawning now"));
        master.stop(&scene);
    });
}

#[test]
fn a_listener_that_was_closed_can_be_opened_again() {
    with_each_node("opened_again", |path| {
        let scene = Scene::new("node-reopens");
        let master = run(&scene, path, &settings(&scene, 2, &["reopens", &host(&scene), "8080"]));
        for pid in master.wait_ready(2) {
            wait_until("it answers", || get(&scene.address(8080), "/").body == format!("pid={pid}\n"));
        }
        master.stop(&scene);
    });
}

/// What a worker sends just before it exits arrives; what Node says by itself is nobody's message.
#[test]
fn last_words_arrive() {
    with_each_node("last_words", |path| {
        let scene = Scene::new("node-words");
        let mut settings = settings(&scene, 1, &["chatter", "300"]);
        settings["backoff"] = json!({ "initial": 600_000, "max": 600_000 });
        let master = run(&scene, path, &settings);
        let status = master.wait_status("two have ended", |status| rows(status)[0]["state"] == "backoff");
        assert_eq!(status["dropped"]["messages"], 0);
        for worker in [1, 2] {
            master.wait_log(&format!("worker {worker} (slot 0) died before it was ready: exit status 0"));
        }
        master.stop(&scene);
    });
}

/// Node's TLS servers share their session keys by way of the master.
#[test]
fn workers_share_what_node_shares() {
    with_each_node("workers_share_what_node_shares", |path| {
        let scene = Scene::new("node-tickets");
        let master = run(&scene, path, &settings(&scene, 2, &["tickets", &host(&scene), "8443"]));
        let [first, second] = ["tickets-1", "tickets-2"].map(|name| written(&scene, name));
        assert_eq!(first, second);
        assert!(first.as_str().is_some_and(|keys| keys.len() == 96), "{first}");
        master.signal(libc::SIGUSR2);
        assert_eq!(written(&scene, "tickets-3"), first, "also those of the next generation");
        master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
        master.stop(&scene);
    });
}

/// `process.send` and `process.on('message')` are the cluster's messages; a burst before the exit arrives whole.
#[test]
fn messages_go_both_ways() {
    with_each_node("messages_go_both_ways", |path| {
        for role in ["page", "chatter"] {
            let scene = Scene::new("node-messages");
            scene.write("worker.js", PROGRAM);
            let mut command = role_command(format!("node:{role}"));
            command.env("PATH", path);
            let mut host = Master::start(&scene, command);
            let status = host.wait_exit();
            assert!(status.success(), "{role}: {status}\n{}", host.log_text());
            scene.assert_nothing_left();
        }
    });
}

/// The page's `/send` and `/sync_send` with workers that know nothing of requests: one that replies and exits at
/// once, one that is slow, one that is silent, and two asks at a time.
#[test]
fn asked_over_http() {
    with_each_node("asked_over_http", |path| {
        let scene = Scene::new("node-asked");
        let master = run(&scene, path, &settings(&scene, 2, &["asked"]));
        let first = master.wait_ready(2);
        let ask = |body: Value| {
            let answer = master.post("/sync_send", &body.to_string());
            (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body)))
        };
        assert_eq!(master.post("/send", r#"{"cmd":"note","msg":"hi"}"#).body, "OK");
        assert_eq!((written(&scene, "noted-1"), written(&scene, "noted-2")), (json!("hi"), json!("hi")));
        assert_eq!(ask(json!({ "cmd": "ping" })), (200, json!(["pong", "pong"])));
        assert_eq!(ask(json!({ "cmd": "silence", "timeout": 150 })), (500, json!("worker timeout.")));
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| ask(json!({ "cmd": "slow" })));
            assert_eq!((written(&scene, "slow-1"), written(&scene, "slow-2")), (json!(true), json!(true)));
            assert_eq!(ask(json!({ "cmd": "slow" })), (500, json!("server too busy.")));
            assert_eq!(
                ask(json!({ "cmd": "ping" })),
                (200, json!(["pong", "pong"])),
                "another cmd is no trouble"
            );
            scene.write("go", "");
            assert_eq!(slow.join().expect("answered"), (200, json!(["slow of 1", "slow of 2"])));
        });
        assert_eq!(ask(json!({ "cmd": "bye" })), (200, json!(["bye of 1", "bye of 2"])));
        wait_until("replaced", || first.is_disjoint(&master.wait_ready(2)));
        assert_eq!(master.status()["forks"]["crashes"], 2);
        master.stop(&scene);
    });
}

/// A worker's children are no workers: not those of a Node worker, and not a Node that a shell starts.
#[test]
fn children_are_not_confused() {
    with_each_node("children", |path| {
        let scene = Scene::new("node-children");
        let mut settings = settings(&scene, 1, &["children", &host(&scene), "8080"]);
        let master = run(&scene, path, &settings);
        let nobody = json!({ "worker": false, "connected": false, "keys": [] });
        assert_eq!(written(&scene, "report-spawned"), nobody);
        assert_eq!(written(&scene, "report-forked")["worker"], false);
        assert_eq!(written(&scene, "report-forked")["connected"], true, "to its own parent");
        master.wait_one_ready();
        assert!(!master.has_logged("lines on its channel dropped"), "{}", master.log_text());
        master.stop(&scene);
        settings["exec"] = json!("sh");
        settings["args"] = json!(["-c", "node worker.js reports by-shell; exec sleep 1000"]);
        settings["minUptime"] = json!(0);
        let master = run(&scene, path, &settings);
        assert_eq!(written(&scene, "report-by-shell"), nobody);
        master.wait_one_ready();
        master.stop(&scene);
    });
}

/// Workers of another user get no privileged port and no path out of the master, and Node says why.
#[test]
fn another_user_gets_the_error_that_node_knows() {
    if !sys::is_root() {
        return skipped(
            "another_user_gets_the_error_that_node_knows",
            "only root starts workers as another user",
        );
    }
    let Some(_) = in_path("node") else { return skipped("another_user", "there is no node here") };
    let scene = Scene::new("node-user");
    let host = host(&scene);
    let forms = json!({
        "privileged": { "listen": [80, host] },
        "path": { "listen": [scene.path("other.sock")] },
        "free": { "listen": [8080, host] },
    });
    let mut settings = settings(&scene, 1, &["listens", &forms.to_string()]);
    settings["user"] = json!("nobody");
    std::fs::set_permissions(&scene.folder, PermissionsExt::from_mode(0o777)).expect("ours");
    let master = Master::run(&scene, &settings);
    let found = written(&scene, "listens-1");
    assert_eq!((&found["privileged"], &found["path"]), (&json!("EACCES"), &json!("EACCES")));
    assert_eq!(found["free"], format!("{host} 8080"));
    master.stop(&scene);
}
