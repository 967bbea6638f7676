//! What must be said whatever the log shows, and wherever it goes: why the log is not as asked for, and why the
//! process ends.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::master::role_command;
use crate::harness::{Scene, proc, proteus};

/// Gives up at the first crash.
fn crashing() -> Value {
    json!({ "worker": 1, "exec": "sh", "args": ["-c", "echo a word; exit 7"], "maxForkCount": 0 })
}

/// Cannot start: the program is not there.
fn absent() -> Value {
    json!({ "worker": 1, "exec": "/no/such/program" })
}

fn run(scene: &Scene, settings: &Value, rules: &str) -> Output {
    let config = scene.write("proteus.json", settings.to_string());
    let mut command = Command::new(proteus());
    command.args(["run", "--config"]).arg(config).env("RUST_LOG", rules);
    command.env(proc::TAG, &scene.tag).output().expect("it runs")
}

/// The lines of stderr that hold this.
fn lines_with(output: &Output, text: &str) -> Vec<String> {
    let log = String::from_utf8_lossy(&output.stderr);
    log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[test]
fn the_line_before_a_failing_exit_is_on_stderr_once() {
    let scene = Scene::new("last-line");
    let with = |mut settings: Value, key: &str, value: Value| {
        settings[key] = value;
        settings
    };
    let file = json!(scene.path("app.log"));
    let nowhere = json!(scene.path("no/such/folder/app.log"));
    let table = [
        (crashing(), 3, "giving up: no worker is ready"),
        (with(crashing(), "logFile", file.clone()), 3, "giving up: no worker is ready"),
        (with(crashing(), "logFile", nowhere), 3, "giving up: no worker is ready"),
        (with(crashing(), "logFormat", "json".into()), 3, "giving up: no worker is ready"),
        (absent(), 2, "/no/such/program: no such file"),
        (with(absent(), "logFile", file), 2, "/no/such/program: no such file"),
        (with(absent(), "woker", 1.into()), 2, "woker"),
    ];
    for (settings, code, line) in table {
        for rules in ["info", "off", "inof", "worker=info", "error/xyz"] {
            let output = run(&scene, &settings, rules);
            let log = String::from_utf8_lossy(&output.stderr);
            let about = format!("RUST_LOG={rules:?} {settings}: {log}");
            assert_eq!(output.status.code(), Some(code), "{about}");
            assert_eq!(lines_with(&output, line).len(), 1, "{about}");
        }
    }
    scene.assert_nothing_left();
}

#[test]
fn rules_that_are_none_leave_info() {
    let scene = Scene::new("no-rules");
    let table = [
        ("", None),
        (" ", None),
        ("INFO", None),
        ("inof", Some("RUST_LOG: \"inof\" is no level")),
        ("worker=inof", Some("RUST_LOG: \"worker=inof\" is no rule")),
        ("a/b/c", Some("RUST_LOG: \"a/b/c\" is no rule")),
    ];
    for (rules, complaint) in table {
        let output = run(&scene, &crashing(), rules);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(lines_with(&output, "a word").len(), 1, "RUST_LOG={rules:?} shows info: {log}");
        let said = lines_with(&output, "RUST_LOG");
        assert_eq!(said.len(), usize::from(complaint.is_some()), "RUST_LOG={rules:?}: {log}");
        assert!(complaint.is_none_or(|text| said[0].contains(text)), "RUST_LOG={rules:?}: {log}");
    }
}

/// A program of its own with a name of its own: one word may be a part of it.
#[test]
fn an_embedded_cluster_says_why_it_ends() {
    let scene = Scene::new("embedded-last-line");
    for logger in ["ours", "none"] {
        for rules in ["", "off", "inof"] {
            let mut command = role_command(format!("logs:gives-up-{logger}"));
            command.env("RUST_LOG", rules).env(proc::TAG, &scene.tag).current_dir(&scene.folder);
            let output = command.output().expect("it runs");
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{logger} RUST_LOG={rules:?}: {log}");
            let last = lines_with(&output, "giving up: no worker is ready");
            assert_eq!(last.len(), 1, "{logger} RUST_LOG={rules:?}: {log}");
        }
    }
    scene.assert_nothing_left();
}
