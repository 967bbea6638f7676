//! A master under test: started, watched, ended.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::http::{self, Answer};
use super::{PATIENCE, Scene, eventually, pause, proc, proteus, sys, wait_until};

/// A running master, its log, and its control API on a unix socket in the test's folder.
pub(crate) struct Master {
    child: Child,
    api: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Master {
    /// `proteus run` with these settings (JSON), the API added.
    #[track_caller]
    pub(crate) fn run(scene: &Scene, settings: &Value) -> Self {
        Master::start(scene, Master::command(scene, settings))
    }

    /// The command that [`Master::run`] starts, for tests that change it first.
    pub(crate) fn command(scene: &Scene, settings: &Value) -> Command {
        let mut settings = settings.clone();
        if settings.get("api").is_none() {
            settings["api"] = serde_json::json!({ "listen": format!("unix:{}", api_path(scene).display()) });
        }
        let config = scene.write("proteus.json", settings.to_string());
        let mut command = Command::new(proteus());
        command.arg("run").arg("--config").arg(config);
        command
    }

    /// Starts a command that becomes a master; its stderr is the log.
    #[track_caller]
    pub(crate) fn start(scene: &Scene, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Master::start_as_is(scene, command)
    }

    /// The same with the command's own stdin, stdout and stderr; without a piped stderr there is no log.
    #[track_caller]
    pub(crate) fn start_as_is(scene: &Scene, mut command: Command) -> Self {
        let keeps = command.get_envs().any(|(key, _)| key == "RUST_LOG");
        command.env(proc::TAG, &scene.tag).current_dir(&scene.folder);
        if !keeps {
            command.env("RUST_LOG", "debug");
        }
        sys::die_with_me(&mut command);
        let mut child = command.spawn().expect("the master starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            });
        }
        Master { child, api: api_path(scene), log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: i32) {
        sys::kill(self.pid(), signal);
    }

    /// Asks the control API.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str) -> Answer {
        self.try_ask(path).unwrap_or_else(|error| panic!("API {path}: {error}\n{}", self.log_text()))
    }

    pub(crate) fn try_ask(&self, path: &str) -> std::io::Result<Answer> {
        http::over_unix(&self.api, "GET", path, "")
    }

    /// Posts to the control API.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let answer = http::post_over_unix(&self.api, path, body);
        answer.unwrap_or_else(|error| panic!("API {path}: {error}\n{}", self.log_text()))
    }

    pub(crate) fn api(&self) -> &Path {
        &self.api
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no status\n{}", self.log_text()))
    }

    pub(crate) fn try_status(&self) -> Option<Value> {
        serde_json::from_str(&self.try_ask("/status").ok()?.body).ok()
    }

    /// Waits until the status satisfies a condition, and returns it.
    #[track_caller]
    pub(crate) fn wait_status(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let within = Instant::now() + PATIENCE;
        loop {
            match self.try_status() {
                Some(status) if condition(&status) => return status,
                status => {
                    assert!(Instant::now() < within, "never: {what}; last {status:?}\n{}", self.log_text());
                }
            }
            pause();
        }
    }

    /// Waits until `count` workers are ready and nobody else is there.
    #[track_caller]
    pub(crate) fn wait_ready(&self, count: usize) -> BTreeSet<u32> {
        let status = self.wait_status(&format!("{count} workers ready"), |status| {
            ready_pids(status).len() == count
                && rows(status).len() == count
                && status["master"]["state"] == "running"
        });
        ready_pids(&status)
    }

    /// The real address of a listener.
    #[track_caller]
    pub(crate) fn address(&self, name: &str) -> String {
        let status = eventually("a status", || self.try_status());
        let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
        let found =
            listeners.iter().find(|listener| listener["name"] == name).expect("the listener is there");
        found["address"].as_str().expect("an address").to_owned()
    }

    /// Waits for a line of the log that holds `text`.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) -> String {
        let found = || self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
        let within = Instant::now() + PATIENCE;
        loop {
            match found() {
                Some(line) => return line,
                None => assert!(Instant::now() < within, "not in the log: {text}\n{}", self.log_text()),
            }
            pause();
        }
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// The one worker of a cluster of one, once it is ready and alone.
    #[track_caller]
    pub(crate) fn wait_one_ready(&self) -> u32 {
        *self.wait_ready(1).first().expect("one")
    }

    /// Waits for the master's end and its exit status; nothing may be left.
    #[track_caller]
    pub(crate) fn ends_with(mut self, scene: &Scene, code: i32) {
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(code), "{}", self.log_text());
        scene.assert_nothing_left();
    }

    /// Waits for the master's end.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let within = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("our own child") {
                Some(status) => return status,
                None => assert!(Instant::now() < within, "the master does not end\n{}", self.log_text()),
            }
            pause();
        }
    }

    /// A graceful end: SIGTERM, status 0, nothing left.
    #[track_caller]
    pub(crate) fn stop(mut self, scene: &Scene) {
        self.signal(libc::SIGTERM);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "{}", self.log_text());
        scene.assert_nothing_left();
    }

    /// No child of the master is a zombie.
    #[track_caller]
    pub(crate) fn assert_no_zombies(&self) {
        wait_until("no zombies", || {
            proc::children(self.pid()).iter().all(|pid| proc::state(*pid) != Some('Z'))
        });
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn api_path(scene: &Scene) -> PathBuf {
    scene.path("api.sock")
}

/// The rows of workers in a status.
pub(crate) fn rows(status: &Value) -> Vec<Value> {
    status["workers"].as_array().cloned().unwrap_or_default()
}

/// The pids of ready workers.
pub(crate) fn ready_pids(status: &Value) -> BTreeSet<u32> {
    let ready = rows(status).into_iter().filter(|row| row["state"] == "ready");
    ready.filter_map(|row| row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())).collect()
}

/// Settings whose workers are the test binary in a role.
pub(crate) fn role_settings(role: &str) -> Value {
    let exe = std::env::current_exe().expect("the test binary");
    serde_json::json!({
        "worker": 4,
        "exec": exe,
        "args": ROLE_ARGS,
        "env": { "PROTEUS_TEST_ROLE": role },
        "listen": { "name": "http", "address": "127.0.0.1:0" },
    })
}

/// Settings whose workers are a script of the shell, which says nothing to the master.
pub(crate) fn shell_workers(workers: usize, script: &str) -> Value {
    serde_json::json!({
        "worker": workers,
        "exec": "/bin/sh",
        "args": ["-c", script],
        "ready": "alive",
        "minUptime": 50,
    })
}

/// Settings whose workers are a shell script: a program that knows nothing of us.
pub(crate) fn shell_settings(script: &str) -> Value {
    serde_json::json!({ "worker": 1, "exec": "sh", "args": ["-c", script] })
}

/// Settings whose workers do nothing at all.
pub(crate) fn idle_settings() -> Value {
    serde_json::json!({ "worker": 1, "exec": "sleep", "args": ["1000"], "minUptime": 20, "canary": 0 })
}

/// A command that makes the test binary play a role by itself.
pub(crate) fn role_command(role: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command.args(ROLE_ARGS).env("PROTEUS_TEST_ROLE", role);
    command
}

/// Runs nothing but the test that plays the role, on a thread beside the main one.
pub(crate) const ROLE_ARGS: [&str; 4] = ["--exact", "roles::play", "--nocapture", "--test-threads=1"];
