//! A master that is killed takes its workers along, and with a guard all that they have started.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, role_command, shell_settings};
use crate::harness::{Master, Scene, eventually, proc, skipped, sys, wait_until};

const NOBODY: u32 = 65_534;

/// The guard beside this master, if there is one.
fn guard_of(master: u32) -> Option<u32> {
    let is_guard = |pid: &u32| proc::status_field(pid, "Name").as_deref() == Some("proteus-guard");
    proc::children(master).into_iter().filter(|pid| proc::is_alive(*pid)).find(is_guard)
}

#[track_caller]
fn wait_guard(master: u32) -> u32 {
    eventually("a guard", || guard_of(master))
}

/// A worker whose shell starts a process of its own.
fn with_grandchildren(workers: usize) -> Value {
    let mut settings = shell_settings("sleep 1000 & exec sleep 1001");
    settings["worker"] = json!(workers);
    settings["minUptime"] = json!(20);
    settings["canary"] = json!(0);
    settings["guard"] = json!(true);
    settings
}

/// All processes of the test but these.
fn others(scene: &Scene, besides: u32) -> usize {
    proc::tagged(&scene.tag).iter().filter(|process| process.pid != besides).count()
}

#[track_caller]
fn kill_and_expect_nobody(scene: &Scene, master: Master) {
    let guard = guard_of(master.pid());
    sys::kill(master.pid(), libc::SIGKILL);
    drop(master);
    scene.assert_nothing_left();
    wait_until("the guard is gone too", || guard.is_none_or(|pid| !proc::is_alive(pid)));
}

/// A folder and a program in it that nobody's master can use, changed by a command of root's.
fn privileged_program(scene: &Scene, of: &str, change: &[&str]) -> Option<PathBuf> {
    let program = scene.path("program");
    std::fs::copy(of, &program).expect("a copy");
    std::os::unix::fs::chown(&scene.folder, Some(NOBODY), Some(NOBODY)).ok()?;
    let (command, arguments) = change.split_first().expect("a command");
    let done = Command::new(command).args(arguments).arg(&program).status();
    done.is_ok_and(|status| status.success()).then_some(program)
}

/// The same master as another user.
fn as_nobody(scene: &Scene, settings: &Value) -> Master {
    let mut command = Command::new(scene.proteus_for_all());
    command.args(Master::command(scene, settings).get_args()).uid(NOBODY).gid(NOBODY);
    Master::start(scene, command)
}

/// The exec of such a program clears the parent-death signal, where the master is not root.
#[test]
fn programs_with_rights_of_their_own_die_with_a_master_that_is_killed() {
    let changes: [&[&str]; 3] =
        [&["setcap", "cap_net_bind_service+ep"], &["chmod", "4755"], &["chmod", "2755"]];
    for change in changes {
        for of in ["/bin/sleep", "/bin/sh"] {
            let scene = Scene::new("elevated");
            let program = privileged_program(&scene, of, change).filter(|_| sys::is_root());
            let Some(program) = program else { return skipped("elevated", "only root can prepare it") };
            let script = format!("#!{}\nsleep \"$@\" & wait\n", program.display());
            let exec = if of == "/bin/sh" { scene.write_program("script", &script) } else { program };
            let mut settings = idle_settings();
            settings["worker"] = json!(2);
            settings["exec"] = json!(exec);
            let master = as_nobody(&scene, &settings);
            let workers = master.wait_ready(2);
            wait_guard(master.pid());
            sys::kill(master.pid(), libc::SIGKILL);
            wait_until("the workers are gone", || workers.iter().all(|pid| !proc::is_alive(*pid)));
            drop(master);
            scene.assert_nothing_left();
        }
    }
}

#[test]
fn a_plain_program_has_no_guard() {
    let scene = Scene::new("unguarded");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    assert_eq!(guard_of(master.pid()), None);
    master.stop(&scene);
}

#[test]
fn what_workers_have_started_goes_with_a_master_that_is_killed() {
    for user in [None, Some("nobody")] {
        let scene = Scene::new("grandchildren");
        let mut settings = with_grandchildren(3);
        if let Some(user) = user.filter(|_| sys::is_root()) {
            settings["user"] = json!(user);
        }
        let master = Master::run(&scene, &settings);
        master.wait_ready(3);
        wait_until("all have begun", || others(&scene, master.pid()) == 6);
        kill_and_expect_nobody(&scene, master);
    }
}

#[test]
fn after_a_restart_only_the_new_workers_are_known() {
    let scene = Scene::new("guard-restart");
    let master = Master::run(&scene, &with_grandchildren(2));
    master.wait_ready(2);
    let guard = wait_guard(master.pid());
    for id in 1..=3 {
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
        master.wait_ready(2);
    }
    let known = || proc::open_files(guard).into_values().filter(|target| target.contains("pidfd")).count();
    wait_until("the master and two workers", || known() == 3);
    wait_until("all have begun", || others(&scene, master.pid()) == 4);
    kill_and_expect_nobody(&scene, master);
}

#[test]
fn a_guard_that_is_lost_is_replaced() {
    let scene = Scene::new("guard-lost");
    let master = Master::run(&scene, &with_grandchildren(2));
    let workers = master.wait_ready(2);
    let first = wait_guard(master.pid());
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
        sys::kill(first, signal);
    }
    assert_eq!(guard_of(master.pid()), Some(first), "it heeds no signal that it can leave");
    sys::kill(first, libc::SIGKILL);
    master.wait_log("the guard has ended (signal 9); starting another in 0 ms");
    let second = eventually("another", || guard_of(master.pid()).filter(|pid| *pid != first));
    assert_eq!(proc::state(first), None, "reaped");
    assert_eq!(master.wait_ready(2), workers, "the workers never notice");
    wait_until("all have begun", || others(&scene, master.pid()) == 4);
    assert_ne!(second, first);
    kill_and_expect_nobody(&scene, master);
}

/// Somebody has stopped it, and its socket is full.
#[test]
fn a_guard_that_does_not_read_is_replaced() {
    let scene = Scene::new("guard-mute");
    let mut settings = shell_settings("exit 0");
    settings["guard"] = json!(true);
    settings["worker"] = json!(8);
    settings["maxForkCount"] = json!(1_000_000);
    settings["backoff"] = json!({ "initial": 1, "max": 1 });
    let master = Master::run(&scene, &settings);
    let first = wait_guard(master.pid());
    sys::kill(first, libc::SIGSTOP);
    master.wait_log("the guard does not read: ");
    eventually("another", || guard_of(master.pid()).filter(|pid| *pid != first));
    wait_until("reaped", || proc::state(first).is_none());
    master.signal(libc::SIGQUIT);
    master.ends_with(&scene, 1);
}

/// Bytes of memory that only this process has.
fn private_memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("there");
    let of = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    of("Private_Clean:") + of("Private_Dirty:")
}

#[test]
fn the_guard_is_small_and_holds_nothing_open() {
    let scene = Scene::new("guard-small");
    let mut settings = with_grandchildren(2);
    settings["args"] = json!(["-c", "seq 20000; sleep 1000 & exec sleep 1001"]);
    settings["listen"] =
        json!(["127.0.0.1:0", { "name": "per-slot", "address": "127.0.0.1:0", "reusePort": true }]);
    settings["output"] = json!("log");
    let master = Master::run(&scene, &settings);
    master.wait_ready(2);
    let guard = wait_guard(master.pid());
    for id in 1..=2 {
        // The master's memory changes, and the guard's does not.
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
    }
    let private = private_memory(guard);
    assert!(private <= 300_000, "{private} bytes");
    let files: Vec<String> = proc::open_files(guard).into_values().collect();
    let sockets = files.iter().filter(|target| target.starts_with("socket:")).count();
    assert_eq!(sockets, 1, "its own alone: {files:?}");
    assert!(
        files.iter().all(|target| target.starts_with("socket:") || target.contains("pidfd")),
        "{files:?}"
    );
    let stat = proc::stat(guard).expect("there");
    assert_eq!((&stat[2], &stat[3]), (&guard.to_string(), &guard.to_string()), "a session of its own");
    assert_eq!(std::fs::read_link(format!("/proc/{guard}/cwd")).expect("there"), Path::new("/"));
    master.stop(&scene);
    assert!(!proc::is_alive(guard));
}

#[test]
fn the_guard_is_no_child_that_a_host_would_see() {
    let scene = Scene::new("guard-host");
    let mut host = Master::start(&scene, role_command("guarded"));
    let status = host.wait_exit();
    assert!(status.success(), "{status}\n{}", host.log_text());
    scene.assert_nothing_left();
}
