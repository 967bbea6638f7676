//! Each generation keeps its own program and working directory: only a restart looks at the paths again.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::master::{ROLE_ARGS, idle_settings};
use crate::harness::{Master, Scene, eventually, proc, sys, wait_until};

fn run(command: &mut Command) {
    assert!(command.status().expect("it starts").success(), "{command:?}");
}

/// A program of its own inode that does nothing for so many seconds.
fn sleeper(path: &Path) {
    run(Command::new("sh").args(["-c", "cp \"$(command -v sleep)\" \"$0\""]).arg(path));
}

fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    let metadata = std::fs::metadata(path).expect("it is there");
    (metadata.dev(), metadata.ino())
}

/// What the process executes, wherever that lies by now.
fn program(pid: u32) -> (u64, u64) {
    identity(format!("/proc/{pid}/exe"))
}

fn folder(scene: &Scene, name: &str) -> PathBuf {
    let folder = scene.path(name);
    std::fs::create_dir_all(&folder).expect("made");
    folder
}

/// Lets a symlink lead elsewhere, in one step.
fn point(link: &Path, target: &Path) {
    let next = link.with_extension("next");
    symlink(target, &next).expect("made");
    std::fs::rename(next, link).expect("in its place");
}

/// Kills the one worker; the pid of its successor.
#[track_caller]
fn crash(master: &Master) -> u32 {
    let victim = master.wait_one_ready();
    sys::kill(victim, libc::SIGKILL);
    master.wait_status("a successor", |status| {
        status["workers"][0]["state"] == "ready" && status["workers"][0]["pid"] != victim
    });
    master.wait_one_ready()
}

#[track_caller]
fn restart(master: &Master) -> u32 {
    let verdict: Value = serde_json::from_str(&master.ask("/restart?wait=19s").body).expect("a verdict");
    assert_eq!(verdict["outcome"], "completed", "{verdict}\n{}", master.log_text());
    master.wait_one_ready()
}

#[test]
fn a_program_that_was_replaced_or_removed() {
    let scene = Scene::new("pinned-program");
    let path = scene.path("server");
    sleeper(&path);
    let mut settings = idle_settings();
    settings["exec"] = json!(path);
    let master = Master::run(&scene, &settings);
    let first = master.wait_one_ready();
    let (old, by_path) = (program(first), proc::open_files(first).len());
    assert_eq!(old, identity(&path));
    let second = scene.path("second");
    sleeper(&second);
    let new = identity(&second);
    std::fs::rename(&second, &path).expect("in its place");
    let pid = crash(&master);
    assert_eq!(program(pid), old, "the old program, though another one lies at its path");
    assert!(
        proc::command(pid).starts_with(path.to_str().expect("text")),
        "argv[0] is {}",
        proc::command(pid)
    );
    wait_until("no descriptor more than by path", || proc::open_files(pid).len() == by_path);
    assert_eq!(program(restart(&master)), new);
    std::fs::remove_file(&path).expect("there");
    assert_eq!(program(crash(&master)), new, "there is nothing at its path");
    let masters = proc::open_files(master.pid());
    let kept = masters.values().filter(|file| file.contains("server")).count();
    assert_eq!(kept, 1, "the program of a generation that is no more is let go: {masters:?}");
    master.stop(&scene);
}

#[test]
fn a_script_behind_a_symlink() {
    let scene = Scene::new("pinned-script");
    let (one, two) = (folder(&scene, "one"), folder(&scene, "two"));
    scene.write_program("one/server", "#!/bin/sh\nexec sleep 1001\n");
    scene.write_program("two/server", "#!/bin/sh\nexec sleep 1002\n");
    let current = scene.path("current");
    point(&current, &one);
    let mut settings = idle_settings();
    settings["exec"] = json!(current.join("server"));
    settings["args"] = json!([]);
    let master = Master::run(&scene, &settings);
    let sleeps = |pid, seconds: &str| {
        wait_until(&format!("sleeps for {seconds}"), || {
            proc::command(pid).trim_end() == format!("sleep {seconds}")
        });
    };
    sleeps(master.wait_one_ready(), "1001");
    point(&current, &two);
    sleeps(crash(&master), "1001");
    sleeps(restart(&master), "1002");
    master.stop(&scene);
}

/// The same with a file that `node` reads; here somebody else plays its part.
#[test]
fn a_node_script_behind_a_symlink() {
    let scene = Scene::new("pinned-node");
    let (one, two, current) = (folder(&scene, "one"), folder(&scene, "two"), scene.path("current"));
    scene.write("one/worker.js", "");
    scene.write("two/worker.js", "");
    folder(&scene, "bin");
    scene.write_program("bin/node", "#!/bin/sh\nexec sh -c 'sleep 1000; true' node \"$@\"\n");
    point(&current, &one);
    let mut settings = idle_settings();
    settings["exec"] = json!(current.join("worker.js"));
    settings["args"] = json!([]);
    settings["ready"] = json!("alive");
    let mut command = Master::command(&scene, &settings);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", scene.path("bin").display()));
    let master = Master::start(&scene, command);
    let reads = |pid, script: &Path| {
        let script = script.to_str().expect("text");
        wait_until(&format!("reads {script}"), || proc::command(pid).trim_end().ends_with(script));
    };
    reads(master.wait_one_ready(), &one.join("worker.js"));
    point(&current, &two);
    reads(crash(&master), &one.join("worker.js"));
    reads(restart(&master), &two.join("worker.js"));
    std::fs::remove_file(two.join("worker.js")).expect("there");
    let verdict = master.ask("/restart?wait=19s").body;
    assert!(verdict.contains("current/worker.js: no such file or directory"), "{verdict}");
    assert!(!verdict.contains("interpreter"), "{verdict}");
    master.stop(&scene);
}

#[test]
fn a_working_directory_behind_a_symlink() {
    let scene = Scene::new("pinned-cwd");
    let (one, two, current) = (folder(&scene, "one"), folder(&scene, "two"), scene.path("current"));
    point(&current, &one);
    let mut settings = idle_settings();
    settings["cwd"] = json!(current);
    let master = Master::run(&scene, &settings);
    let enters = |pid: u32, folder: &Path| identity(format!("/proc/{pid}/cwd")) == identity(folder);
    assert!(enters(master.wait_one_ready(), &one));
    point(&current, &two);
    assert!(enters(crash(&master), &one));
    assert!(enters(restart(&master), &two));
    std::fs::remove_file(&current).expect("there");
    let verdict = master.ask("/restart?wait=19s").body;
    assert!(verdict.contains("enter the working directory of"), "{verdict}");
    assert!(enters(crash(&master), &two));
    master.stop(&scene);
}

#[test]
fn a_bare_name_is_looked_up_by_a_restart_alone() {
    let scene = Scene::new("pinned-name");
    let (near, far) = (folder(&scene, "near"), folder(&scene, "far"));
    sleeper(&far.join("idler"));
    let mut settings = idle_settings();
    settings["exec"] = json!("idler");
    let mut command = Master::command(&scene, &settings);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{}:{path}", near.display(), far.display()));
    let master = Master::start(&scene, command);
    let found = program(master.wait_one_ready());
    assert_eq!(found, identity(far.join("idler")));
    sleeper(&near.join("idler"));
    let pid = crash(&master);
    assert_eq!(program(pid), found);
    assert!(proc::command(pid).starts_with("idler"), "{}", proc::command(pid));
    assert_eq!(program(restart(&master)), identity(near.join("idler")));
    master.stop(&scene);
}

/// Without `exec` a worker runs the program that the master runs.
#[test]
fn the_running_executable() {
    let scene = Scene::new("pinned-own");
    let path = scene.path("own");
    run(Command::new("cp").arg(std::env::current_exe().expect("the test binary")).arg(&path));
    let mut command = Command::new(&path);
    command.args(ROLE_ARGS).env("PROTEUS_TEST_ROLE", "main:panics");
    let master = Master::start(&scene, command);
    let old = identity(&path);
    master.wait_status("two workers", |status| {
        let rows = status["workers"].as_array().cloned().unwrap_or_default();
        rows.len() == 2 && rows.iter().all(|row| row["state"] == "ready")
    });
    std::fs::remove_file(&path).expect("there");
    scene.write_program("own", "#!/bin/sh\nexit 7\n");
    for pid in master.wait_ready(2) {
        assert_eq!(program(pid), old);
        sys::kill(pid, libc::SIGKILL);
    }
    master.wait_status("two crashes", |status| status["forks"]["crashes"] == 2);
    for pid in master.wait_ready(2) {
        assert_eq!(program(pid), old);
    }
    let verdict = master.ask("/restart?wait=19s").body;
    assert!(verdict.contains("exit status 7"), "{verdict}");
    master.stop(&scene);
}

/// A program file that somebody still writes to cannot be executed: that passes, and is no failure of the release.
#[test]
fn a_program_that_is_still_being_written() {
    let scene = Scene::new("pinned-busy");
    let path = scene.path("server");
    sleeper(&path);
    let mut settings = idle_settings();
    settings["exec"] = json!(path);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let next = scene.path("next");
    sleeper(&next);
    let mut writer = Command::new("sh");
    writer.args(["-c", "exec 3>>\"$0\"; echo; cat"]).arg(&next).stdin(Stdio::piped()).stdout(Stdio::piped());
    sys::die_with_me(&mut writer);
    let mut writer = writer.spawn().expect("sh");
    let mut line = [0];
    std::io::Read::read_exact(writer.stdout.as_mut().expect("piped"), &mut line)
        .expect("it holds the file open");
    std::fs::rename(&next, &path).expect("in its place");
    master.signal(libc::SIGUSR2);
    master.wait_log("text file busy");
    let status = master.status();
    assert_eq!(
        (&status["restart"]["state"], &status["restart"]["phase"]),
        (&json!("running"), &json!("canary"))
    );
    drop(writer.stdin.take());
    writer.wait().expect("our child");
    master.wait_status("restart completed", |status| status["restart"]["state"] == "completed");
    assert_eq!(program(master.wait_one_ready()), identity(&path));
    assert_eq!(master.status()["forks"], json!({ "crashes": 0, "planned": 1, "budgetLeft": 100 }));
    master.stop(&scene);
}

/// What came with a scale runs the program of the generation that serves.
#[test]
fn one_more_worker_is_of_the_generation_that_serves() {
    let scene = Scene::new("pinned-scale");
    let path = scene.path("server");
    sleeper(&path);
    let old = identity(&path);
    let mut settings = idle_settings();
    settings["exec"] = json!(path);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    std::fs::remove_file(&path).expect("there");
    master.signal(libc::SIGTTIN);
    let pids = eventually("two workers", || {
        let status = master.try_status()?;
        Some(crate::harness::master::ready_pids(&status)).filter(|pids| pids.len() == 2)
    });
    assert!(pids.into_iter().all(|pid| program(pid) == old));
    master.stop(&scene);
}
