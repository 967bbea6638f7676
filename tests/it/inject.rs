//! System calls that fail, by way of strace: skipped, and said so, where that is not to be had.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::master::{role_command, role_settings, rows, shell_workers};
use crate::harness::{Master, Scene, eventually, get, proc, skipped, sys, wait_until};

const SLEEPER: &str = "exec sleep 300";

/// The command under strace, which stands aside and fails these calls; `None` where there is no strace.
fn failing(scene: &Scene, command: &Command, injections: &[&str]) -> Option<Command> {
    let possible = Command::new("strace").args(["-D", "-f", "-qq", "-o", "/dev/null", "true"]).output();
    if !possible.is_ok_and(|tried| tried.status.success()) {
        skipped(&scene.tag, "there is no strace, or it may not trace");
        return None;
    }
    let calls: Vec<&str> = injections.iter().filter_map(|injection| injection.split(':').next()).collect();
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-o"]).arg(scene.path("trace"));
    strace.args(["-e", "signal=none", "-e", &format!("trace={}", calls.join(","))]);
    for injection in injections {
        strace.args(["-e", &format!("inject={injection}")]);
    }
    strace.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        strace.env(key, value.expect("tests only add variables"));
    }
    Some(strace)
}

/// How kernels before 5.3 look.
const NO_PIDFDS: &[&str] = &["pidfd_open:error=ENOSYS", "pidfd_send_signal:error=ENOSYS"];

#[test]
fn without_pidfds_the_whole_walk_works() {
    let scene = Scene::new("no-pidfds");
    let mut settings = shell_workers(10, SLEEPER);
    settings["canary"] = 20.into();
    let Some(command) = failing(&scene, &Master::command(&scene, &settings), NO_PIDFDS) else { return };
    let mut master = Master::start(&scene, command);
    let first = master.wait_ready(10);
    assert!(proc::has_signal(master.pid(), "SigCgt", libc::SIGCHLD), "exits come by signal");
    assert!(proc::open_files(master.pid()).values().all(|file| !file.contains("pidfd")));
    sys::kill(*first.first().unwrap(), libc::SIGKILL);
    master.wait_status("one crash", |status| status["forks"]["crashes"] == 1);
    let second = master.wait_ready(10);
    master.signal(libc::SIGSTOP);
    wait_until("stopped", || matches!(proc::state(master.pid()), Some('T' | 't')));
    for pid in &second {
        sys::kill(*pid, libc::SIGKILL);
    }
    wait_until("all dead", || second.iter().all(|pid| proc::state(*pid) == Some('Z')));
    master.signal(libc::SIGCONT);
    master.wait_status("ten more crashes", |status| status["forks"]["crashes"] == 11);
    let third = master.wait_ready(10);
    master.assert_no_zombies();
    master.signal(libc::SIGUSR2);
    master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
    assert!(master.wait_ready(10).is_disjoint(&third));
    master.assert_no_zombies();
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

#[test]
fn without_pidfds_the_hosts_children_and_signals_stay_its_own() {
    for role in ["thief", "before-and-after", "children:50"] {
        let scene = Scene::new(&format!("no-pidfds-{}", role.split(':').next().unwrap()));
        let Some(command) = failing(&scene, &role_command(role), NO_PIDFDS) else { return };
        let mut host = Master::start(&scene, command);
        let status = host.wait_exit();
        let by_signal = role == "before-and-after" && status.signal() == Some(libc::SIGINT);
        let expected = status.success() || by_signal;
        assert!(expected, "{status}\n{}", host.log_text());
        scene.assert_nothing_left();
    }
}

#[test]
fn a_lack_of_processes_is_waited_out_and_costs_no_budget() {
    let scene = Scene::new("eagain");
    let settings = shell_workers(4, SLEEPER);
    let lack = ["clone:error=EAGAIN:when=2..9"];
    let Some(command) = failing(&scene, &Master::command(&scene, &settings), &lack) else { return };
    let mut master = Master::start(&scene, command);
    master.wait_ready(4);
    let status = master.status();
    assert_eq!(status["forks"], json!({ "crashes": 0, "planned": 0, "budgetLeft": 100 }));
    let line = master.wait_log("could not be started");
    assert!(line.contains("fork /bin/sh: resource temporarily unavailable; respawning in 100 ms"), "{line}");
    master.wait_log("respawning in 200 ms");
    wait_until("eight lines", || master.log_text().matches("could not be started").count() == 8);
    let failed = rows(&status).into_iter().filter(|row| row["lastExit"]["cause"] == "spawn-failed");
    assert_eq!(failed.count(), 3, "{status}");
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

/// The fifth process is the first replacement: it is tried again, and the release is not to blame.
#[test]
fn a_lack_of_processes_during_a_restart_is_waited_out_and_aborts_nothing() {
    let scene = Scene::new("eagain-restart");
    let mut settings = shell_workers(4, SLEEPER);
    settings["canary"] = 20.into();
    settings["backoff"] = json!({ "initial": 20, "max": 100 });
    let lack = ["clone:error=EAGAIN:when=5..7"];
    let Some(command) = failing(&scene, &Master::command(&scene, &settings), &lack) else { return };
    let mut master = Master::start(&scene, command);
    let first = master.wait_ready(4);
    master.signal(libc::SIGUSR2);
    let status = master.wait_status("the restart is over", |status| status["restart"]["state"] != "running");
    assert_eq!(status["restart"]["state"], "completed", "{status}\n{}", master.log_text());
    assert!(master.wait_ready(4).is_disjoint(&first));
    assert_eq!(master.status()["forks"], json!({ "crashes": 0, "planned": 4, "budgetLeft": 100 }));
    master.wait_log(
        "could not be started: fork /bin/sh: resource temporarily unavailable; respawning in 20 ms",
    );
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

#[test]
fn interrupted_calls_are_made_again() {
    let scene = Scene::new("eintr");
    let mut settings = role_settings("service");
    settings["canary"] = 20.into();
    let interrupted = [
        "epoll_wait:error=EINTR:when=1+3",
        "accept4:error=EINTR:when=1+2",
        "recvmsg:error=EINTR:when=1+4",
        "sendmsg:error=EINTR:when=1+4",
        "waitid:error=EINTR:when=1+5",
        "wait4:error=EINTR:when=1+2",
    ];
    let Some(command) = failing(&scene, &Master::command(&scene, &settings), &interrupted) else { return };
    let mut master = Master::start(&scene, command);
    let first = master.wait_ready(4);
    let address = master.address("http");
    for _ in 0..40 {
        assert_eq!(get(&address, "/").status, 200);
    }
    sys::kill(*first.first().unwrap(), libc::SIGKILL);
    master.wait_status("one crash", |status| status["forks"]["crashes"] == 1);
    master.wait_ready(4);
    master.signal(libc::SIGUSR2);
    master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
    assert!(master.wait_ready(4).is_disjoint(&first));
    let exits: Vec<_> = rows(&master.status()).iter().map(|row| row["lastExit"]["signal"].clone()).collect();
    assert!(exits.iter().all(serde_json::Value::is_null), "{exits:?}");
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

/// Every limit between too few to start and enough: which step of the start meets it differs from machine to machine.
#[test]
fn a_lack_of_descriptors_is_said_and_waited_out_without_spinning() {
    std::thread::scope(|scope| {
        for first in 8..12 {
            scope.spawn(move || (first..=32).step_by(4).for_each(starts_with_few_descriptors));
        }
    });
}

fn starts_with_few_descriptors(limit: u32) {
    let scene = Scene::new(&format!("nofile-{limit}"));
    let mut command = Command::new("sh");
    let inner = Master::command(&scene, &shell_workers(8, SLEEPER));
    // The hard limit too: the master would raise the soft one to it.
    command.args(["-c", r#"ulimit -n "$0"; exec "$@""#, &limit.to_string()]);
    command.arg(inner.get_program()).args(inner.get_args());
    let mut master = Master::start(&scene, command);
    let ended = eventually("an error", || {
        let text = master.log_text();
        text.contains("open files").then(|| text.contains("proteus: "))
    });
    if ended {
        assert_eq!(master.wait_exit().code(), Some(2), "{}", master.log_text());
    } else {
        waits_it_out(&mut master);
    }
    scene.assert_nothing_left();
}

/// Little processor time while it lasts; all workers once it is over.
fn waits_it_out(master: &mut Master) {
    let (began, used) = (Instant::now(), proc::processor_time(master.pid()));
    wait_until("some time of want", || began.elapsed() > Duration::from_millis(500));
    let used = proc::processor_time(master.pid()).saturating_sub(used);
    assert!(used < began.elapsed() / 2, "{used:?} of {:?}\n{}", began.elapsed(), master.log_text());
    sys::limit_descriptors(master.pid(), 1024);
    master.wait_log("all 8 workers are ready");
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
}

/// As for a master without `CAP_KILL` whose workers run as another user: it cannot end them, and does not say that it has.
#[test]
fn a_restart_whose_old_worker_may_not_be_signalled_is_not_completed() {
    let scene = Scene::new("denied");
    let mut settings = shell_workers(1, SLEEPER);
    settings["canary"] = 20.into();
    settings["disconnectTimeout"] = 300.into();
    let denied = ["pidfd_send_signal:error=EPERM", "kill:error=EPERM"];
    let Some(command) = failing(&scene, &Master::command(&scene, &settings), &denied) else { return };
    let master = Master::start(&scene, command);
    let first = master.wait_one_ready();
    let verdict = master.ask("/restart?wait=19s");
    let said: serde_json::Value = serde_json::from_str(&verdict.body).expect("a verdict");
    assert_eq!((verdict.status, &said["outcome"]), (500, &json!("aborted")), "{said}\n{}", master.log_text());
    let reason = said["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("worker 1 cannot be signalled: operation not permitted"), "{said}");
    assert!(proc::is_alive(first), "it serves on");
    assert_eq!(master.status()["master"]["generation"], 1);
    master.wait_log("worker 1 (slot 0) cannot be signalled: operation not permitted");
    master.signal(libc::SIGTERM);
    // Somebody is left behind, until the master is gone and the kernel ends what it has left.
    master.ends_with(&scene, 1);
}
