//! `proteus run --watch`: what restarts, what does not, and what a broken program does.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Master, Scene, skipped};

/// Says that it is ready, unless it is broken.
const PROGRAM: &str = r#"echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD; exec sleep 1000"#;
const BROKEN: &str = "echo 'syntax error' >&2; exit 1";

/// A master that watches these paths, with a worker that runs `src/app.sh`.
fn begin(scene: &Scene, watched: &[&str]) -> Master {
    fs::create_dir_all(scene.path("src/lib")).expect("a folder");
    scene.write("src/app.sh", PROGRAM);
    let settings = json!({
        "worker": 1,
        "exec": "sh",
        "args": ["src/app.sh"],
        "ready": "notify",
        "canary": 0,
    });
    let mut command = Master::command(scene, &settings);
    for path in watched {
        command.args(["--watch", path]);
    }
    let master = Master::start(scene, command);
    master.wait_one_ready();
    master
}

#[track_caller]
fn wait_restart(master: &Master, id: u64, state: &str) -> Value {
    master.wait_status(&format!("restart {id} {state}"), |status| {
        status["restart"]["id"] == id && status["restart"]["state"] == state
    })
}

#[test]
fn a_changed_file_restarts_and_nothing_else_does() {
    if !cfg!(feature = "watch") {
        return skipped("a_changed_file_restarts_and_nothing_else_does", "built without `watch`");
    }
    let scene = Scene::new("watch");
    let master = begin(&scene, &["src"]);
    // Nothing of this changes a file that counts.
    fs::read_to_string(scene.path("src/app.sh")).expect("the program");
    for name in ["src/.app.sh.swp", "src/app.sh~", "src/out.log", "beside.sh"] {
        scene.write(name, "x");
    }
    // In place, by a rename, in a folder below, in one that is new, and by a removal: each restarts once.
    scene.write("src/app.sh", format!("{PROGRAM} "));
    assert_eq!(wait_restart(&master, 1, "completed")["restart"]["replaced"], 1);
    scene.write("src/next", PROGRAM);
    wait_restart(&master, 2, "completed");
    fs::rename(scene.path("src/next"), scene.path("src/app.sh")).expect("renamed");
    wait_restart(&master, 3, "completed");
    scene.write("src/lib/part.sh", "");
    wait_restart(&master, 4, "completed");
    fs::create_dir_all(scene.path("src/new/deep")).expect("folders");
    scene.write("src/new/deep/part.sh", "");
    wait_restart(&master, 5, "completed");
    fs::remove_dir_all(scene.path("src/new")).expect("removed");
    wait_restart(&master, 6, "completed");
    master.wait_log("src/app.sh has changed");
    assert!(!master.has_logged("out.log"), "{}", master.log_text());
    master.stop(&scene);
}

#[test]
fn many_files_at_once_are_one_change() {
    if !cfg!(feature = "watch") {
        return skipped("many_files_at_once_are_one_change", "built without `watch`");
    }
    let scene = Scene::new("watch-many");
    let master = begin(&scene, &["src"]);
    for number in 0..200 {
        scene.write(&format!("src/lib/{number}.sh"), "x");
    }
    wait_restart(&master, 1, "completed");
    scene.write("src/app.sh", format!("{PROGRAM} "));
    master.wait_log("src/app.sh has changed");
    let status = master.wait_status("that too", |status| {
        let restart = &status["restart"];
        restart["id"].as_u64().is_some_and(|id| id > 1) && restart["state"] == "completed"
    });
    // One, but for a machine that stood still while they were written.
    let restarts = status["restart"]["id"].as_u64().expect("a number");
    assert!(restarts < 10, "200 files were {} changes", restarts - 1);
    master.stop(&scene);
}

#[test]
fn a_broken_program_changes_nothing_until_it_is_mended() {
    if !cfg!(feature = "watch") {
        return skipped("a_broken_program_changes_nothing_until_it_is_mended", "built without `watch`");
    }
    let scene = Scene::new("watch-broken");
    // The file alone, as one would name a program that was built.
    let master = begin(&scene, &["src/app.sh"]);
    let pid = master.wait_one_ready();
    scene.write("src/next", BROKEN);
    fs::rename(scene.path("src/next"), scene.path("src/app.sh")).expect("renamed");
    let status = wait_restart(&master, 1, "aborted");
    assert!(
        status["restart"]["reason"].as_str().is_some_and(|why| why.contains("exit status 1")),
        "{status}"
    );
    assert_eq!(master.wait_one_ready(), pid, "the old worker stays");
    scene.write("src/app.sh", PROGRAM);
    wait_restart(&master, 2, "completed");
    assert_ne!(master.wait_one_ready(), pid);
    master.stop(&scene);
}

#[test]
fn a_path_that_is_not_there_starts_nothing() {
    if !cfg!(feature = "watch") {
        return skipped("a_path_that_is_not_there_starts_nothing", "built without `watch`");
    }
    let output = std::process::Command::new(crate::harness::proteus())
        .args(["run", "--watch", "/no/such/path", "--", "sleep", "1000"])
        .output()
        .expect("proteus runs");
    assert_eq!(output.status.code(), Some(2));
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(line, "proteus: --watch /no/such/path: no such file or directory\n");
}
