//! The log: nobody waits for whoever reads it.

use std::process::{Command, Stdio};

use crate::harness::master::shell_workers;
use crate::harness::{Master, Scene};

/// A worker that makes the master log without end: not one of its lines is JSON.
const CHATTER: &str = "eval \"exec 1>&$PROTEUS_CHANNEL_FD\"; while :; do echo nonsense; done";

#[test]
fn a_stopped_reader_of_stderr_stops_nothing() {
    let scene = Scene::new("stopped-reader");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Master::command(&scene, &shell_workers(1, CHATTER));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let master = Master::start_as_is(&scene, command);
    // A line of the log for each thousand or so; many times more than the pipe takes.
    master.wait_status("lines enough", |status| status["dropped"]["messages"].as_u64() > Some(400_000));
    master.wait_one_ready();
    master.stop(&scene);
    drop(reader);
}

#[test]
fn a_reader_of_stderr_that_leaves_stops_nothing() {
    let scene = Scene::new("gone-reader");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Master::command(&scene, &shell_workers(1, "exec sleep 1000"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let master = Master::start_as_is(&scene, command);
    master.wait_one_ready();
    master.wait_status("the lost lines", |status| status["dropped"]["logLines"].as_u64() > Some(0));
    master.stop(&scene);
}

#[test]
fn an_end_writes_what_is_queued() {
    let scene = Scene::new("last-lines");
    let config = scene
        .write("c.json", r#"{ "worker": 1, "exec": "sh", "args": ["-c", "exit 7"], "maxForkCount": 0 }"#);
    let output = Command::new(crate::harness::proteus())
        .args(["run", "--config"])
        .arg(config)
        .env(crate::harness::proc::TAG, &scene.tag)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(log.lines().last().is_some_and(|line| line.contains("giving up")), "{log}");
}
