//! Signals as they really come: from a terminal, too early, blocked, ignored, in storms.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::master::{role_settings, rows, shell_workers};
use crate::harness::{Master, Scene, eventually, pause, proc, sample_or_full, sys, wait_until};

/// A worker of a program that no Rust runtime has touched.
const SLEEPER: &str = "exec sleep 300";
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";

/// What a shell sends two Ctrl-C later than to be counted as two orders.
const ANOTHER_ORDER: Duration = Duration::from_millis(400);

#[test]
fn ctrl_c_is_graceful_and_the_workers_do_not_get_it() {
    let scene = Scene::new("ctrl-c");
    let mut settings = role_settings("interruptible");
    settings["worker"] = 2.into();
    let (mut keyboard, terminal) = sys::terminal();
    let mut command = Master::command(&scene, &settings);
    sys::control_terminal(&mut command, terminal);
    let mut master = Master::start(&scene, command);
    for pid in master.wait_ready(2) {
        assert_eq!(proc::stat(pid).unwrap()[2], pid.to_string(), "a process group of its own");
    }
    keyboard.write_all(b"\x03").unwrap();
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    master.wait_log("SIGINT received");
    for slot in 0..2 {
        master.wait_log(&format!("(slot {slot}) has left: exit status 0"));
    }
    scene.assert_nothing_left();
}

#[test]
fn a_second_ctrl_c_forces() {
    let scene = Scene::new("ctrl-c-twice");
    let mut settings = shell_workers(2, STUBBORN);
    settings["disconnectTimeout"] = 60_000.into();
    let (mut keyboard, terminal) = sys::terminal();
    let mut command = Master::command(&scene, &settings);
    sys::control_terminal(&mut command, terminal);
    let mut master = Master::start(&scene, command);
    master.wait_ready(2);
    keyboard.write_all(b"\x03").unwrap();
    master.wait_log("shutting down: 2 workers");
    let first = Instant::now();
    wait_until("time for another order", || first.elapsed() > ANOTHER_ORDER);
    keyboard.write_all(b"\x03").unwrap();
    assert_eq!(master.wait_exit().code(), Some(1), "{}", master.log_text());
    master.wait_log("forced shutdown: killing 2 workers");
    scene.assert_nothing_left();
}

#[test]
fn the_terminal_goes_away_and_everything_stays() {
    let scene = Scene::new("hang-up");
    let (keyboard, terminal) = sys::terminal();
    let mut command = Master::command(&scene, &shell_workers(2, SLEEPER));
    command.stdin(terminal.try_clone().unwrap());
    command.stdout(terminal.try_clone().unwrap()).stderr(terminal.try_clone().unwrap());
    sys::control_terminal(&mut command, terminal);
    let mut master = Master::start_as_is(&scene, command);
    let workers = master.wait_ready(2);
    drop(keyboard);
    wait_until("no terminal any more", || proc::stat(master.pid()).is_some_and(|stat| stat[4] == "0"));
    assert_eq!(master.wait_ready(2), workers);
    master.signal(libc::SIGUSR2);
    master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
    assert!(master.wait_ready(2).is_disjoint(&workers));
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0));
    scene.assert_nothing_left();
}

#[test]
fn other_signals_neither_kill_nor_stop_nor_restart() {
    let scene = Scene::new("other-signals");
    let master = Master::run(&scene, &shell_workers(2, SLEEPER));
    let workers = master.wait_ready(2);
    let said = [(libc::SIGHUP, "SIGHUP: ignored"), (libc::SIGUSR1, "SIGUSR1 received")];
    for (signal, text) in said {
        master.signal(signal);
        master.wait_log(text);
        assert_ne!(proc::state(master.pid()), Some('T'));
    }
    assert_eq!(master.wait_ready(2), workers);
    assert!(master.status()["restart"].is_null());
    master.stop(&scene);
}

#[test]
fn a_storm_does_not_drown_one_term() {
    let scene = Scene::new("storm");
    let mut settings = shell_workers(2, SLEEPER);
    settings["canary"] = 0.into();
    let master = Master::run(&scene, &settings);
    master.wait_ready(2);
    let count = sample_or_full(100_000, 1_000_000);
    for number in 0..count {
        master.signal(if number == count / 2 { libc::SIGTERM } else { libc::SIGUSR2 });
    }
    let mut master = master;
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

#[test]
fn usr2_at_any_moment_of_the_start_never_kills_a_master_that_has_begun() {
    let scene = Scene::new("early-usr2");
    let count = sample_or_full(30, 500);
    let mut survived = 0;
    for round in 0..count {
        let mut master = Master::run(&scene, &shell_workers(1, SLEEPER));
        let at = Instant::now() + Duration::from_micros(50_000 * round as u64 / count as u64);
        wait_until("the moment", || Instant::now() >= at);
        // Before main() runs nobody can catch anything: what counts is what was in place just before.
        let caught = proc::has_signal(master.pid(), "SigCgt", libc::SIGUSR2);
        master.signal(libc::SIGUSR2);
        if eventually("all are caught, or it is dead", || fate(&master)) == Fate::Dead {
            assert!(!caught, "{}", master.log_text());
            assert_eq!(master.wait_exit().signal(), Some(libc::SIGUSR2), "{}", master.log_text());
            continue;
        }
        master.signal(libc::SIGTERM);
        assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
        survived += 1;
    }
    assert!(survived > count / 2, "{survived} of {count}");
    scene.assert_nothing_left();
}

#[derive(PartialEq)]
enum Fate {
    Dead,
    Catches,
}

fn fate(master: &Master) -> Option<Fate> {
    if !proc::is_alive(master.pid()) {
        return Some(Fate::Dead);
    }
    proc::has_signal(master.pid(), "SigCgt", libc::SIGTERM).then_some(Fate::Catches)
}

#[test]
fn orders_that_come_while_the_settings_are_read_are_obeyed() {
    let scene = Scene::new("reading-settings");
    let settings = shell_workers(1, SLEEPER).to_string();
    let fifo = scene.path("settings");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for signal in [libc::SIGUSR2, libc::SIGTERM] {
        let mut command = Command::new(crate::harness::proteus());
        command.args(["run", "--config"]).arg(&fifo);
        let mut master = Master::start(&scene, command);
        let mut writer = OpenOptions::new().write(true).open(&fifo).unwrap(); // opens once the master reads
        master.signal(signal);
        writer.write_all(settings.as_bytes()).unwrap();
        drop(writer);
        match signal {
            libc::SIGTERM => master.wait_log("SIGTERM received"),
            _ => master.wait_log("restart 1 completed"),
        };
        if signal != libc::SIGTERM {
            master.signal(libc::SIGTERM);
        }
        assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    }
    scene.assert_nothing_left();
}

/// How a wrapper may leave the signals: blocked, and ignored.
const STARTS: [(&[i32], &[i32]); 5] = [
    (&[libc::SIGTERM, libc::SIGINT, libc::SIGUSR2, libc::SIGCHLD, libc::SIGQUIT, libc::SIGHUP], &[]),
    (&[], &[libc::SIGCHLD]),
    (&[], &[libc::SIGHUP, 32, 64]),
    (&[], &[libc::SIGINT, libc::SIGQUIT]),
    (
        &[libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG],
        &[libc::SIGCHLD, libc::SIGPIPE, libc::SIGTERM, libc::SIGUSR2],
    ),
];

#[test]
fn signals_blocked_or_ignored_at_the_start_change_nothing() {
    for (number, (blocked, ignored)) in STARTS.into_iter().enumerate() {
        let scene = Scene::new(&format!("masked-{number}"));
        let mut settings = shell_workers(2, SLEEPER);
        settings["canary"] = 0.into();
        let mut command = Master::command(&scene, &settings);
        sys::with_signals(&mut command, blocked, ignored);
        let mut master = Master::start(&scene, command);
        let first = master.wait_ready(2);
        for pid in &first {
            for set in ["SigBlk", "SigIgn"] {
                assert_eq!(proc::status_field(pid, set).as_deref(), Some("0000000000000000"), "{set}");
            }
        }
        sys::kill(*first.first().unwrap(), libc::SIGKILL);
        master.wait_status("the crash is counted", |status| status["forks"]["crashes"] == 1);
        let second = master.wait_ready(2);
        master.assert_no_zombies();
        master.signal(libc::SIGUSR2);
        master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
        assert!(master.wait_ready(2).is_disjoint(&second));
        master.signal(libc::SIGINT);
        assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
        scene.assert_nothing_left();
    }
}

#[test]
fn a_background_job_without_terminal_or_stdio_works() {
    let scene = Scene::new("nohup");
    let mut settings = shell_workers(2, SLEEPER);
    settings["output"] = "inherit".into();
    let inner = Master::command(&scene, &settings);
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec nohup "$@" <&- >&- 2>&-"#, "sh"]).arg(inner.get_program());
    command.args(inner.get_args());
    let mut master = Master::start(&scene, command);
    let workers = master.wait_ready(2);
    for pid in &workers {
        let open = proc::open_files(*pid);
        assert_eq!(open[&0], "/dev/null");
        assert!(
            [1, 2].iter().all(|number| open.get(number).is_none_or(|file| file == "/dev/null")),
            "{open:?}"
        );
    }
    master.signal(libc::SIGHUP);
    sys::kill(*workers.first().unwrap(), libc::SIGKILL);
    master.wait_status("the crash is counted", |status| status["forks"]["crashes"] == 1);
    master.wait_ready(2);
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0));
    scene.assert_nothing_left();
}

#[test]
fn a_log_that_nobody_reads_any_more_kills_nobody() {
    let scene = Scene::new("log-reader-gone");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Master::command(&scene, &shell_workers(2, SLEEPER));
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer.try_clone().unwrap());
    let mut master = Master::start_as_is(&scene, command);
    let workers = master.wait_ready(2);
    sys::kill(*workers.first().unwrap(), libc::SIGKILL);
    master.wait_status("the crash is counted", |status| status["forks"]["crashes"] == 1);
    master.wait_ready(2);
    assert_eq!(rows(&master.status()).len(), 2);
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0));
    let mut refused = Command::new(crate::harness::proteus());
    refused.args(["run", "--config", "/nowhere"]).stdout(writer.try_clone().unwrap()).stderr(writer);
    assert_eq!(refused.status().unwrap().code(), Some(2));
    pause();
    scene.assert_nothing_left();
}
