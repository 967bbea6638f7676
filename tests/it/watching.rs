//! `proteus run --watch`: what restarts, what does not, and what a broken program does.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// A release is a link that is swapped, and so is each change of a Kubernetes `ConfigMap`.
#[test]
fn a_swapped_link_above_the_watched_path_is_one_restart_each_time() {
    if !cfg!(feature = "watch") {
        return skipped(
            "a_swapped_link_above_the_watched_path_is_one_restart_each_time",
            "built without `watch`",
        );
    }
    let scene = Scene::new("watch-links");
    let swap = |target: &str, link: &str| {
        symlink(target, scene.path("next")).expect("a link");
        fs::rename(scene.path("next"), scene.path(link)).expect("swapped");
    };
    for folder in ["r1/src", "r2/src", "config/..v1", "config/..v2"] {
        fs::create_dir_all(scene.path(folder)).expect("a folder");
        scene.write(&format!("{folder}/part.sh"), folder);
    }
    for (target, link) in [("r1", "current"), ("..v1", "config/..data"), ("..data/part.sh", "config/part.sh")]
    {
        swap(target, link);
    }
    let master = begin(&scene, &["current/src", "config"]);
    for (id, target, link) in [(1, "r2", "current"), (2, "..v2", "config/..data"), (3, "r1", "current")] {
        swap(target, link);
        wait_restart(&master, id, "completed");
    }
    scene.write("config/..v2/part.sh", "edited");
    wait_restart(&master, 4, "completed");
    master.wait_log("r2/src/part.sh has changed");
    master.stop(&scene);
}

#[test]
fn too_few_watches_are_said_and_made_up_for() {
    const NAME: &str = "too_few_watches_are_said_and_made_up_for";
    if !cfg!(feature = "watch") {
        return skipped(NAME, "built without `watch`");
    }
    let limit = r#"echo 8 > /proc/sys/user/max_inotify_watches && exec "$@""#;
    let within = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", limit, "sh"]).arg(program);
        command
    };
    if !within("true".as_ref()).status().is_ok_and(|status| status.success()) {
        return skipped(NAME, "no user namespaces here");
    }
    let scene = Scene::new("watch-limit");
    for number in 0..20 {
        fs::create_dir_all(scene.path(&format!("src/{number}"))).expect("a folder");
        scene.write(&format!("src/{number}/part.sh"), "1");
    }
    scene.write("src/app.sh", PROGRAM);
    let settings =
        json!({ "worker": 1, "exec": "sh", "args": ["src/app.sh"], "ready": "notify", "canary": 0 });
    let inner = Master::command(&scene, &settings);
    let mut command = within(inner.get_program());
    command.args(inner.get_args()).args(["--watch", "src"]);
    let master = Master::start(&scene, command);
    master.wait_one_ready();
    let line = master.wait_log("the system does not tell of changes in ");
    assert!(line.contains(" WARN ") && line.contains("max_user_watches"), "{line}");
    // At least twelve of the folders are looked at without having been told of: among them one of these two.
    for (id, number) in [(1, 0), (2, 19)] {
        scene.write(&format!("src/{number}/part.sh"), "22");
        wait_restart(&master, id, "completed");
    }
    master.stop(&scene);
}

/// A page that is open (server-sent events, a socket) keeps its worker until the time is over.
#[test]
fn saves_do_not_wait_for_workers_that_do_not_go() {
    if !cfg!(feature = "watch") {
        return skipped("saves_do_not_wait_for_workers_that_do_not_go", "built without `watch`");
    }
    let scene = Scene::new("watch-stubborn");
    let program = format!("trap '' TERM; {PROGRAM}");
    let master = begin(&scene, &["src"]);
    for id in 1..=4 {
        let saved = Instant::now();
        scene.write("src/app.sh", format!("{program} # {id}"));
        wait_restart(&master, id, "completed");
        assert!(saved.elapsed() < Duration::from_secs(5), "save {id} took {:?}", saved.elapsed());
    }
    let told = Instant::now();
    master.stop(&scene);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[test]
fn a_path_that_is_not_there_starts_nothing() {
    if !cfg!(feature = "watch") {
        return skipped("a_path_that_is_not_there_starts_nothing", "built without `watch`");
    }
    let output = Command::new(crate::harness::proteus())
        .args(["run", "--watch", "/no/such/path", "--", "sleep", "1000"])
        .output()
        .expect("proteus runs");
    assert_eq!(output.status.code(), Some(2));
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(line, "proteus: --watch /no/such/path: no such file or directory\n");
}
