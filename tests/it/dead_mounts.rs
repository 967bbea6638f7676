//! File systems that do not answer: whatever a worker names there, the master goes on.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::master::{idle_settings, shell_settings};
use crate::harness::mounts::{DeadMount, with_own_mounts};
use crate::harness::{Master, Scene, http, proc, skipped, sys, wait_until};

/// Far less than any test waits for, far more than a look takes.
const SOON: Duration = Duration::from_millis(1500);

/// A folder that is dead from now on; without FUSE there is none.
fn dead(test: &str, scene: &Scene, name: &str) -> Option<DeadMount> {
    let folder = scene.path(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    DeadMount::over(&folder).inspect_err(|error| skipped(test, &error.to_string())).ok()
}

#[track_caller]
fn answers_soon(master: &Master) {
    let began = Instant::now();
    master.status();
    assert!(began.elapsed() < SOON, "the loop slept for {:?}", began.elapsed());
}

/// Its own worker waits and is told; another worker's path is bound meanwhile, and signals are taken.
#[test]
fn a_path_that_a_worker_names_there_holds_up_nobody_else() {
    with_own_mounts("a_path_that_a_worker_names_there", || {
        let scene = Scene::new("dead-listen");
        let Some(_mount) = dead("a_path_that_a_worker_names_there", &scene, "dead") else { return };
        let script = r#"say() { echo "$1" >&$PROTEUS_CHANNEL_FD; }
            [ $PROTEUS_SLOT = 0 ] && path=dead/app.sock || path=app.sock
            say '{"cmd":"PROTEUS_HELLO"}'; say '{"cmd":"PROTEUS_READY"}'
            say '{"cmd":"PROTEUS_LISTEN","address":"unix:'$path'"}'
            read -r line <&$PROTEUS_CHANNEL_FD; echo "$line" >answer.$PROTEUS_SLOT
            exec sleep 1000"#;
        let mut settings = shell_settings(script);
        settings["worker"] = json!(2);
        settings["disconnectTimeout"] = json!(100);
        let master = Master::run(&scene, &settings);
        let answer =
            |slot| std::fs::read_to_string(scene.path(&format!("answer.{slot}"))).unwrap_or_default();
        wait_until("the healthy path is bound", || answer(1).contains("\"fd\":true"));
        assert!(scene.path("app.sock").exists());
        answers_soon(&master);
        wait_until("the worker is told", || answer(0).contains("has not answered"));
        let line = master.wait_log("asked to listen");
        assert!(line.contains("dead/app.sock") && line.contains("has not answered for 2s"), "{line}");
        answers_soon(&master);
        let began = Instant::now();
        master.stop(&scene);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(!scene.path("app.sock").exists());
    });
}

/// The folder of the sockets and of the pid file died while the master ran: it is released, and ends, all the same.
#[test]
fn files_that_cannot_be_removed_any_more_do_not_keep_the_master() {
    with_own_mounts("files_that_cannot_be_removed", || {
        let scene = Scene::new("dead-remove");
        let script = r#"say() { echo "$1" >&$PROTEUS_CHANNEL_FD; }
            [ $PROTEUS_GENERATION = 1 ] && say '{"cmd":"PROTEUS_LISTEN","address":"unix:run/asked.sock"}'
            say '{"cmd":"PROTEUS_READY"}'
            exec sleep 1000"#;
        let folder = scene.path("run");
        std::fs::create_dir(&folder).expect("a folder");
        let mut settings = shell_settings(script);
        settings["listen"] = json!(["unix:run/one.sock", "unix:run/two.sock"]);
        settings["pid"] = json!("run/pid");
        settings["canary"] = json!(0);
        settings["api"] = json!({ "listen": "unix:api.sock" });
        settings["disconnectTimeout"] = json!(100);
        let master = Master::run(&scene, &settings);
        master.wait_one_ready();
        wait_until("bound", || folder.join("asked.sock").exists());
        let Some(mount) = dead("files_that_cannot_be_removed", &scene, "run") else { return };
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
        master.wait_status("released", |status| {
            status["listeners"].as_array().is_some_and(|listeners| listeners.len() == 2)
        });
        answers_soon(&master);
        let began = Instant::now();
        master.stop(&scene);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        drop(mount);
    });
}

/// The API's own socket too.
#[test]
fn an_api_whose_file_cannot_be_removed_any_more_ends() {
    with_own_mounts("an_api_whose_file_cannot_be_removed", || {
        let scene = Scene::new("dead-api");
        let folder = scene.path("run");
        std::fs::create_dir(&folder).expect("a folder");
        let mut settings = idle_settings();
        settings["api"] = json!({ "listen": "unix:run/api.sock" });
        let master = Master::run(&scene, &settings);
        wait_until("it answers", || http::over_unix(&folder.join("api.sock"), "GET", "/ready", "").is_ok());
        let Some(mount) = dead("an_api_whose_file_cannot_be_removed", &scene, "run") else { return };
        master.stop(&scene);
        drop(mount);
    });
}

/// A copy of a program that sleeps, in a folder of its own.
fn sleeper(scene: &Scene, folder: &str) -> std::path::PathBuf {
    std::fs::create_dir_all(scene.path(folder)).expect("a folder");
    let path = scene.path(folder).join("server");
    let copied = Command::new("sh").args(["-c", "cp \"$(command -v sleep)\" \"$0\""]).arg(&path).status();
    assert!(copied.expect("sh").success());
    path
}

/// The program is open: a file system that died over its path is not asked.
#[test]
fn a_program_that_is_open_comes_back() {
    with_own_mounts("a_program_that_is_open_comes_back", || {
        let scene = Scene::new("dead-program");
        let mut settings = idle_settings();
        settings["exec"] = json!(sleeper(&scene, "app"));
        let master = Master::run(&scene, &settings);
        let first = master.wait_one_ready();
        let Some(_mount) = dead("a_program_that_is_open_comes_back", &scene, "app") else { return };
        sys::kill(first, libc::SIGKILL);
        answers_soon(&master);
        master.wait_status("a successor", |status| status["workers"][0]["id"] == 2);
        let second = master.wait_one_ready();
        assert_eq!(proc::command(second).trim_end(), format!("{} 1000", scene.path("app/server").display()));
        answers_soon(&master);
        master.stop(&scene);
    });
}

/// A script is read by its path, which does not answer: the others are started meanwhile, orders are taken, and the
/// log says what is wrong.
#[test]
fn a_program_that_does_not_answer_holds_up_nobody_else() {
    with_own_mounts("a_program_that_does_not_answer", || {
        let scene = Scene::new("dead-script");
        std::fs::create_dir(scene.path("app")).expect("a folder");
        let script = scene.write_program("app/server", "#!/bin/sh\nexec sleep 1000\n");
        let mut settings = idle_settings();
        settings["exec"] = json!(script);
        settings["args"] = json!([]);
        settings["worker"] = json!(2);
        let master = Master::run(&scene, &settings);
        let workers = master.wait_ready(2);
        let Some(mount) = dead("a_program_that_does_not_answer", &scene, "app") else { return };
        for worker in &workers {
            sys::kill(*worker, libc::SIGKILL);
        }
        master.wait_status("both are gone", |status| status["forks"]["crashes"] == 2);
        answers_soon(&master);
        let line = master.wait_log("could not be started");
        assert!(line.contains("app/server: its file system has not answered for 5 s"), "{line}");
        assert_eq!(master.status()["forks"]["crashes"], 2, "a file system that is silent is no crash");
        drop(mount);
        for pid in master.wait_ready(2) {
            wait_until("the script", || proc::command(pid).starts_with("sleep 1000"));
        }
        let Some(_mount) = dead("a_program_that_does_not_answer", &scene, "app") else { return };
        sys::kill(*master.wait_ready(2).first().expect("two"), libc::SIGKILL);
        master
            .wait_status("it is being started", |status| status["workers"].to_string().contains("starting"));
        let began = Instant::now();
        master.signal(libc::SIGQUIT);
        master.ends_with(&scene, 1);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    });
}

/// A release that cannot be read is refused, and what runs goes on; nothing waits for it but its restart.
#[test]
fn a_release_that_does_not_answer_is_refused() {
    with_own_mounts("a_release_that_does_not_answer", || {
        let scene = Scene::new("dead-release");
        let current = scene.path("current");
        let (one, _) = (sleeper(&scene, "one"), sleeper(&scene, "two"));
        std::os::unix::fs::symlink("one", &current).expect("made");
        let mut settings = idle_settings();
        settings["exec"] = json!(current.join("server"));
        let master = Master::run(&scene, &settings);
        let first = master.wait_one_ready();
        let Some(_mount) = dead("a_release_that_does_not_answer", &scene, "two") else { return };
        std::os::unix::fs::symlink("two", scene.path("next")).expect("made");
        std::fs::rename(scene.path("next"), &current).expect("in its place");
        master.signal(libc::SIGUSR2);
        master.wait_status("it restarts", |status| status["restart"]["state"] == "running");
        sys::kill(first, libc::SIGKILL);
        master.wait_status("a successor", |status| status["workers"][0]["state"] == "ready");
        answers_soon(&master);
        let began = master.wait_one_ready();
        assert_eq!(proc::command(began).trim_end(), format!("{} 1000", one.display()));
        let status = master.wait_status("a verdict", |status| status["restart"]["state"] == "aborted");
        let reason = status["restart"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("current/server: its file system has not answered for 5 s"), "{reason}");
        master.stop(&scene);
    });
}

/// A start that would never be one ends with a line that says why, as `check` does.
#[test]
fn a_program_that_does_not_answer_at_the_start() {
    with_own_mounts("a_program_that_does_not_answer_at_the_start", || {
        let scene = Scene::new("dead-start");
        let mut settings = idle_settings();
        settings["exec"] = json!(sleeper(&scene, "app"));
        let test = "a_program_that_does_not_answer_at_the_start";
        let Some(_mount) = dead(test, &scene, "app") else { return };
        let began = Instant::now();
        let mut master = Master::run(&scene, &settings);
        assert_eq!(master.wait_exit().code(), Some(2), "{}", master.log_text());
        let line = master.wait_log("has not answered");
        assert!(line.contains("app/server: its file system has not answered for 5 s"), "{line}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        scene.assert_nothing_left();
    });
}
