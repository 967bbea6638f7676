//! What a worker is born with: its environment, descriptors, signals, group and user, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, shell_settings};
use crate::harness::{Master, Scene, proc, skipped, sys, wait_until};

/// What the master alone tells a worker, or its own manager tells it.
const INTERNAL: [&str; 20] = [
    "PROTEUS_WORKER_ID",
    "PROTEUS_SLOT",
    "PROTEUS_GENERATION",
    "PROTEUS_CHANNEL_FD",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "SYSTEMD_EXEC_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
];

/// Starts the master by way of a shell that does something first.
fn by_shell(scene: &Scene, settings: &Value, first: &str) -> Command {
    let run = Master::command(scene, settings);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]).arg(run.get_program()).args(run.get_args());
    command
}

fn six_listeners() -> Value {
    (0..6).map(|at| json!({ "name": format!("l{at}"), "address": "127.0.0.1:0" })).collect()
}

#[test]
fn the_exact_environment() {
    let scene = Scene::new("environment");
    let mut settings = idle_settings();
    settings["worker"] = json!(2);
    settings["canary"] = json!(0);
    settings["env"] = json!({ "COLOUR": "blue", "EMPTY": "", "HOME": "/elsewhere", "WITH": "a=b\nc" });
    settings["listen"] = json!([{ "name": "a b", "address": "127.0.0.1:0" }, "127.0.0.1:0"]);
    let mut command = Master::command(&scene, &settings);
    for key in INTERNAL {
        command.env(key, "leaked");
    }
    command.env("HOME", "/home").env("PROTEUS_OTHER", "stays");
    let master = Master::start(&scene, command);
    master.wait_ready(2);
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    master.wait_ready(2);
    let mut base = proc::environment(master.pid());
    base.retain(|key, _| !INTERNAL.contains(&key.as_str()));
    for (key, value) in [("COLOUR", "blue"), ("EMPTY", ""), ("HOME", "/elsewhere"), ("WITH", "a=b\nc")] {
        base.insert(key.into(), value.into());
    }
    for row in master.status()["workers"].as_array().expect("rows") {
        let pid = u32::try_from(row["pid"].as_u64().expect("a pid")).expect("a pid");
        let mut found = proc::environment(pid);
        let notify = found.remove("NOTIFY_SOCKET").expect("a socket");
        assert!(notify.starts_with(&format!("@proteus/{}/{}/", master.pid(), row["id"])), "{notify}");
        let own = [
            ("PROTEUS_WORKER_ID", row["id"].to_string()),
            ("PROTEUS_SLOT", row["slot"].to_string()),
            ("PROTEUS_GENERATION", "2".into()),
            ("PROTEUS_CHANNEL_FD", "5".into()),
            ("LISTEN_FDS", "2".into()),
            ("LISTEN_PID", pid.to_string()),
            ("LISTEN_FDNAMES", "a b:listen1".into()),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        let expected: BTreeMap<String, String> = base.clone().into_iter().chain(own).collect();
        assert_eq!(found, expected);
    }
    master.stop(&scene);
}

#[test]
fn without_listeners_nothing_is_said_of_them() {
    let scene = Scene::new("environment-none");
    let master = Master::run(&scene, &idle_settings());
    let found = proc::environment(master.wait_one_ready());
    let keys: Vec<&str> = INTERNAL.into_iter().filter(|key| found.contains_key(*key)).collect();
    assert_eq!(
        keys,
        ["PROTEUS_WORKER_ID", "PROTEUS_SLOT", "PROTEUS_GENERATION", "PROTEUS_CHANNEL_FD", "NOTIFY_SOCKET"]
    );
    assert_eq!(found["PROTEUS_CHANNEL_FD"], "3");
    master.stop(&scene);
}

/// 0, 1, 2, six listeners, the channel at 9; blocking, all of them.
#[track_caller]
fn assert_exact_descriptors(master: &Master, pid: u32, output: &str) {
    let exact: Vec<u32> = (0..=9).collect();
    // A program that starts opens this and that, and closes it again.
    wait_until("exactly 0 to 9", || proc::open_files(pid).into_keys().collect::<Vec<_>>() == exact);
    let files = proc::open_files(pid);
    assert_eq!(files[&0], "/dev/null");
    match output {
        "inherit" => {
            let masters = proc::open_files(master.pid());
            assert_eq!((&files[&1], &files[&2]), (&masters[&1], &masters[&2]));
        }
        _ => assert!([1, 2].iter().all(|number| files[number].starts_with("pipe:")), "{files:?}"),
    }
    let sockets: BTreeSet<&String> = (3..=9).map(|number| &files[&number]).collect();
    assert!(sockets.len() == 7 && sockets.iter().all(|target| target.starts_with("socket:")), "{files:?}");
    for number in 3..=9 {
        let flags = proc::file_flags(pid, number);
        assert_eq!(flags & libc::O_NONBLOCK, 0, "descriptor {number} blocks");
    }
    assert_eq!(proc::environment(pid)["PROTEUS_CHANNEL_FD"], "9");
}

/// Also when the master was started with more descriptors than its own, and after many restarts.
#[test]
fn the_exact_descriptors() {
    for output in ["inherit", "log"] {
        exact_descriptors(output);
    }
}

fn exact_descriptors(output: &str) {
    let scene = Scene::new("descriptors");
    let script = r#"echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD; exec sleep 1000"#;
    let mut settings = shell_settings(script);
    settings["listen"] = six_listeners();
    settings["canary"] = json!(0);
    settings["output"] = json!(output);
    let master = Master::start(
        &scene,
        by_shell(&scene, &settings, "exec 3</dev/null 5</dev/zero 7>/dev/null 9</dev/null"),
    );
    let wait = || {
        let pid = master.wait_one_ready();
        wait_until("the shell has become a sleep", || proc::command(pid).starts_with("sleep"));
        pid
    };
    assert_exact_descriptors(&master, wait(), output);
    let of_the_master = proc::descriptors(master.pid());
    for id in 1..=20 {
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
    }
    assert_exact_descriptors(&master, wait(), output);
    wait_until("the master has no more than before", || proc::descriptors(master.pid()) <= of_the_master);
    master.assert_no_zombies();
    master.stop(&scene);
}

#[test]
fn signals_as_a_program_expects_them() {
    const BLOCKED: [i32; 6] =
        [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGCHLD, libc::SIGHUP];
    const IGNORED: [i32; 6] =
        [libc::SIGHUP, libc::SIGPIPE, libc::SIGCHLD, libc::SIGTERM, libc::SIGQUIT, libc::SIGTTOU];
    let scene = Scene::new("signals");
    let mut command = Master::command(&scene, &idle_settings());
    sys::with_signals(&mut command, &BLOCKED, &IGNORED);
    let master = Master::start(&scene, command);
    let pid = master.wait_one_ready();
    for line in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        let mask = u64::from_str_radix(&proc::status_line(pid, line), 16).expect("hexadecimal");
        // The two signals that the C library keeps for itself have no disposition that others see.
        assert_eq!(mask & !(0b11 << 31), 0, "{line}");
    }
    let first = master.wait_one_ready();
    master.signal(libc::SIGUSR2); // blocked and ignored at birth, and yet heard
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    assert_ne!(master.wait_one_ready(), first);
    master.stop(&scene);
}

#[test]
fn a_process_group_of_its_own() {
    let scene = Scene::new("group");
    let mut settings = idle_settings();
    settings["worker"] = json!(2);
    let master = Master::run(&scene, &settings);
    for pid in master.wait_ready(2) {
        let stat = proc::stat(pid).expect("it is there");
        assert_eq!((&stat[1], &stat[2]), (&master.pid().to_string(), &pid.to_string()), "parent and group");
    }
    master.stop(&scene);
}

#[test]
fn workers_die_with_a_master_that_is_killed() {
    let scene = Scene::new("orphans");
    let mut settings = idle_settings();
    settings["worker"] = json!(3);
    if sys::is_root() {
        settings["user"] = json!("nobody"); // a change of user clears what was set before it
    }
    let master = Master::run(&scene, &settings);
    let workers = master.wait_ready(3);
    sys::kill(master.pid(), libc::SIGKILL);
    wait_until("all are gone", || workers.iter().all(|pid| !proc::is_alive(*pid)));
    drop(master);
    scene.assert_nothing_left();
}

#[test]
fn working_folder() {
    let scene = Scene::new("cwd");
    let folder = scene.path("inside");
    std::fs::create_dir(&folder).expect("made");
    for (cwd, expected) in
        [(None, scene.folder.clone()), (Some("inside"), folder.clone()), (Some("/"), PathBuf::from("/"))]
    {
        let mut settings = idle_settings();
        if let Some(cwd) = cwd {
            settings["cwd"] = json!(cwd);
        }
        let master = Master::run(&scene, &settings);
        let pid = master.wait_one_ready();
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).expect("there"), expected);
        master.stop(&scene);
    }
}

#[test]
fn user_and_group() {
    let scene = Scene::new("user");
    if !sys::is_root() {
        println!("skipped: only root can start workers as somebody else");
        return;
    }
    let id = |of: &str| {
        let output = Command::new("id").args([of, "nobody"]).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let four = |id: &str| [id; 4].join("\t");
    let table = [
        (json!({ "user": "nobody" }), four(&id("-u")), four(&id("-g")), id("-G")),
        (json!({ "user": "4711", "group": "4712" }), four("4711"), four("4712"), "4712".to_owned()),
        (json!({ "group": "4712" }), four("0"), four("4712"), "4712".to_owned()),
    ];
    for (who, uid, gid, groups) in table {
        let mut settings = idle_settings();
        for (key, value) in who.as_object().expect("an object") {
            settings[key] = value.clone();
        }
        let master = Master::run(&scene, &settings);
        let pid = master.wait_one_ready();
        assert_eq!(proc::status_line(pid, "Uid"), uid, "{who}");
        assert_eq!(proc::status_line(pid, "Gid"), gid, "{who}");
        assert_eq!(proc::status_line(pid, "Groups"), groups, "{who}");
        if uid != four("0") {
            assert_eq!(proc::status_line(pid, "CapEff"), "0000000000000000", "{who}");
        }
        master.stop(&scene);
    }
}

/// What the environment of a master of root's says of root is not true of another user.
#[test]
fn the_environment_tells_of_the_workers_own_user() {
    let scene = Scene::new("user-environment");
    if !sys::is_root() {
        return skipped("user-environment", "only root can start workers as somebody else");
    }
    let entry = Command::new("getent").args(["passwd", "nobody"]).output().expect("getent").stdout;
    let entry = String::from_utf8(entry).expect("text");
    let fields: Vec<&str> = entry.trim().split(':').collect();
    let roots = |key: &str| if key == "HOME" { "/root" } else { "root" };
    let keys = ["USER", "LOGNAME", "HOME", "SHELL", "XDG_RUNTIME_DIR"];
    let cases = [
        (
            json!({ "user": "nobody" }),
            [Some(fields[0]), Some(fields[0]), Some(fields[5]), Some(fields[6]), None],
        ),
        (
            json!({ "user": "nobody", "env": { "HOME": "/srv", "XDG_RUNTIME_DIR": "/run/svc" } }),
            [Some(fields[0]), Some(fields[0]), Some("/srv"), Some(fields[6]), Some("/run/svc")],
        ),
        (json!({ "user": "4711" }), [None, None, Some("/"), None, None]),
        (json!({ "group": "4712" }), keys.map(|key| Some(roots(key)))),
        (json!({ "user": "root" }), keys.map(|key| Some(roots(key)))),
    ];
    for (who, expected) in cases {
        let mut settings = idle_settings();
        for (key, value) in who.as_object().expect("an object") {
            settings[key] = value.clone();
        }
        let mut command = Master::command(&scene, &settings);
        for key in keys {
            command.env(key, roots(key));
        }
        let master = Master::start(&scene, command);
        let found = proc::environment(master.wait_one_ready());
        assert_eq!(keys.map(|key| found.get(key).map(String::as_str)), expected, "{who}");
        master.stop(&scene);
    }
}

/// Another user's worker gets no privileged port out of the master; any other it may have.
#[test]
fn another_user_gets_no_privileged_port() {
    let scene = Scene::new("privileged");
    if !sys::is_root() {
        println!("skipped: only root can start workers as somebody else");
        return;
    }
    let ask = |port| format!(r#"{{"cmd":"PROTEUS_LISTEN","address":"{}"}}"#, scene.address(port));
    let script = format!(
        "fd=$PROTEUS_CHANNEL_FD\nfor line in '{}' '{}' '{}'; do\n\
         echo \"$line\" >&$fd; read answer <&$fd; echo \"answer: $answer\" >&2; done; exec sleep 1000",
        ask(80),
        ask(8080),
        r#"{"cmd":"PROTEUS_LISTEN","address":"unix:/run/proteus-test.sock"}"#
    );
    let mut settings = shell_settings(&script);
    settings["user"] = json!("nobody");
    let master = Master::run(&scene, &settings);
    let answer = |thing: &str| {
        let line = master.wait_log(&format!("answer: {{\"address\":\"{thing}\""));
        let (_, answer) = line.split_once("answer: ").expect("the shell's line");
        serde_json::from_str::<Value>(answer).expect("JSON")
    };
    for thing in [scene.address(80), "unix:/run/proteus-test.sock".into()] {
        let answer = answer(&thing);
        assert_eq!(answer["fd"], Value::Null, "{answer}");
        let error = answer["error"].as_str().expect("a reason");
        assert!(error.contains("the workers run as another user than the master"), "{answer}");
    }
    assert_eq!(answer(&scene.address(8080))["fd"], true);
    master.stop(&scene);
}

#[test]
fn the_stop_signal_is_the_one_that_was_set() {
    let scene = Scene::new("stop-signal");
    let script = r"trap ': >told; exit 0' QUIT; trap '' TERM; : >up; while :; do sleep 0.02; done";
    let mut settings = shell_settings(script);
    settings["stopSignal"] = json!("quit");
    settings["disconnectTimeout"] = json!(600_000);
    let master = Master::run(&scene, &settings);
    wait_until("the script runs", || scene.path("up").exists());
    master.signal(libc::SIGTERM);
    master.ends_with(&scene, 0);
    assert!(scene.path("told").exists());
}

#[test]
fn a_protected_master_does_not_protect_its_workers() {
    let scene = Scene::new("oom");
    let score =
        |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("there").trim().to_owned();
    let set = |score: &str| format!("echo {score} >/proc/self/oom_score_adj");
    if !Command::new("sh").args(["-c", &set("-500")]).status().expect("sh").success() {
        println!("skipped: this user cannot protect a process from the OOM killer");
        return;
    }
    for (of_the_master, of_the_worker) in [("-500", "0"), ("300", "300")] {
        let master = Master::start(&scene, by_shell(&scene, &idle_settings(), &set(of_the_master)));
        let pid = master.wait_one_ready();
        assert_eq!((score(master.pid()).as_str(), score(pid).as_str()), (of_the_master, of_the_worker));
        master.stop(&scene);
    }
}
