//! File systems that do not answer: whatever a worker names there, the master goes on.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::master::{idle_settings, shell_settings};
use crate::harness::mounts::{DeadMount, with_own_mounts};
use crate::harness::{Master, Scene, http, skipped, wait_until};

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
