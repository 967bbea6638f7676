//! The ways in which a release can be bad, each rolled out under load to a cluster of its own: no request fails,
//! the workers that serve go on serving, the verdict says why; a worker that dies afterwards is followed by one of the
//! program before, and once the release is mended it is rolled out.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::load::{Connections, Ledger, Load};
use crate::harness::master::{ready_pids, role_settings, rows};
use crate::harness::watch::Watch;
use crate::harness::{Master, Scene, eventually, record, sys};

const WORKERS: usize = 4;

/// Files that all rows share: two copies of the test binary, told apart by their inodes.
struct Programs {
    scene: Scene,
}

impl Programs {
    fn new() -> Self {
        let scene = Scene::new("matrix");
        let exe = std::env::current_exe().expect("the test binary");
        for name in ["v1", "v2"] {
            // By another process: a descriptor of ours, open for writing, would be in other tests' processes.
            run(Command::new("cp").arg(&exe).arg(scene.path(name)));
        }
        Programs { scene }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("it starts").success(), "{command:?}");
}

/// A cluster whose program is replaced.
struct Site<'a> {
    scene: Scene,
    programs: &'a Programs,
    master: Master,
}

/// What is put where the program lies.
enum Release {
    /// Nothing at all.
    Missing,
    /// A file that nobody may execute.
    NotExecutable,
    /// A script; `GOOD` stands for the good program and its arguments.
    Script(&'static str),
}

struct Row {
    name: &'static str,
    release: Release,
    /// What the reason says; `None` where the restart completes.
    refused: Option<&'static str>,
    ready_timeout: u64,
}

const BAD: [Row; 7] = [
    Row { name: "missing", release: Release::Missing, refused: Some("no such file"), ready_timeout: 30_000 },
    Row {
        name: "not-executable",
        release: Release::NotExecutable,
        refused: Some("not executable"),
        ready_timeout: 30_000,
    },
    Row {
        name: "crashes-at-once",
        release: Release::Script("exit 7"),
        refused: Some("died before it was ready: exit status 7"),
        ready_timeout: 30_000,
    },
    Row {
        name: "crashes-in-its-canary",
        release: Release::Script("PROTEUS_TEST_ROLE=brief:20 exec GOOD"),
        refused: Some("exit status 9"),
        ready_timeout: 30_000,
    },
    Row {
        name: "mute",
        release: Release::Script("exec sleep 1000"),
        // Also how long the good ones may take to start, on a machine with other things to do.
        refused: Some("was not ready within 5000 ms"),
        ready_timeout: 5000,
    },
    Row {
        name: "slow",
        release: Release::Script("sleep 0.5; exec GOOD"),
        refused: None,
        ready_timeout: 30_000,
    },
    Row {
        name: "fails-for-the-third",
        release: Release::Script("mkdir one 2>/dev/null || mkdir two 2>/dev/null || exit 7; exec GOOD"),
        refused: Some("died before it was ready: exit status 7"),
        ready_timeout: 30_000,
    },
];

#[test]
fn a_release_that_is_bad_in_one_way_or_another() {
    let programs = Programs::new();
    std::thread::scope(|scope| {
        for row in &BAD {
            scope.spawn(|| row.run(&programs));
        }
        scope.spawn(|| replaced_by_rename_meanwhile(&programs));
        scope.spawn(|| edited_in_place_meanwhile(&programs));
    });
}

impl Row {
    fn run(&self, programs: &Programs) {
        let settings = json!({ "readyTimeout": self.ready_timeout });
        let site = Site::open(self.name, programs, "threads", &settings);
        let eye = Eye::open(&site);
        site.put(&self.release);
        let verdict = site.restart();
        let seen = eye.close();
        record(self.name, &seen);
        let Some(reason) = self.refused else {
            assert_eq!(verdict["outcome"], "completed", "{verdict}");
            return site.close();
        };
        site.assert_refused(&verdict, reason);
        site.assert_old_program_comes_back();
        site.mend(3);
        site.close();
    }
}

/// Pinned when the first replacement starts: whatever comes later is for the next restart.
fn replaced_by_rename_meanwhile(programs: &Programs) {
    let site = Site::open("renamed-meanwhile", programs, "gated:gate", &json!({}));
    let eye = Eye::open(&site);
    site.put_program("v2");
    site.while_the_canary_boots(|| site.put(&Release::Script("exit 7")));
    let status =
        site.master.wait_status("the restart is over", |status| status["restart"]["state"] != "running");
    assert_eq!(status["restart"]["state"], "completed", "{status}");
    eye.close();
    site.assert_program("v2", 2);
    sys::kill(*site.master.wait_ready(WORKERS).first().expect("some"), libc::SIGKILL);
    site.master.wait_status("one crash", |status| status["forks"]["crashes"] == 1);
    site.assert_program("v2", 2);
    site.close();
}

/// A script that is edited is new code for whoever starts next: the restart fails half way, and is rolled back.
fn edited_in_place_meanwhile(programs: &Programs) {
    let site = Site::open("edited-meanwhile", programs, "gated:gate", &json!({}));
    let eye = Eye::open(&site);
    site.put(&Release::Script("exec GOOD"));
    site.while_the_canary_boots(|| site.edit("#!/bin/sh\nexit 7\n"));
    let status =
        site.master.wait_status("the restart is over", |status| status["restart"]["state"] != "running");
    eye.close();
    assert_eq!(status["restart"]["state"], "aborted", "{status}");
    assert_eq!(status["restart"]["replaced"], 0, "{status}");
    assert!(
        site.master.has_logged("restart 1 fails with 1 of 4 workers replaced"),
        "{}",
        site.master.log_text()
    );
    site.assert_old_program_comes_back();
    site.mend(3);
    site.close();
}

impl<'a> Site<'a> {
    #[track_caller]
    fn open(name: &str, programs: &'a Programs, role: &str, more: &Value) -> Self {
        let scene = Scene::new(&format!("matrix-{name}"));
        scene.write("gate", "");
        let program = scene.path("server");
        run(Command::new("ln").arg(programs.path("v1")).arg(&program));
        let mut settings = role_settings(role);
        settings["exec"] = json!(program);
        settings["worker"] = json!(WORKERS);
        settings["canary"] = json!(200);
        settings["cwd"] = json!(scene.folder);
        for (key, value) in more.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        let master = Master::run(&scene, &settings);
        master.wait_ready(WORKERS);
        let site = Site { scene, programs, master };
        site.assert_program("v1", 1);
        site
    }

    fn program(&self) -> PathBuf {
        self.scene.path("server")
    }

    /// Puts a copy of the test binary where the program lies, in one step.
    fn put_program(&self, name: &str) {
        let next = self.scene.path("next");
        run(Command::new("ln").arg(self.programs.path(name)).arg(&next));
        std::fs::rename(next, self.program()).expect("in its place");
    }

    fn put(&self, release: &Release) {
        match release {
            Release::Missing => std::fs::remove_file(self.program()).expect("it was there"),
            Release::NotExecutable => {
                let file = self.scene.write("next", "#!/bin/sh\n");
                std::fs::rename(file, self.program()).expect("in its place");
            }
            Release::Script(text) => {
                let good = format!("{} \"$@\"", self.programs.path("v2").display());
                let text = format!("#!/bin/sh\n{}\n", text.replace("GOOD", &good));
                self.scene.write_program("server", &text);
            }
        }
    }

    /// Writes over the file that lies there.
    fn edit(&self, text: &str) {
        run(Command::new("sh").args(["-c", "printf '%s' \"$1\" >\"$0\""]).arg(self.program()).arg(text));
    }

    /// Asks for a restart and waits for its verdict.
    #[track_caller]
    fn restart(&self) -> Value {
        let answer = self.master.ask("/restart?wait=19s");
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no verdict: {answer:?}"))
    }

    /// Does something at a moment when the first replacement has begun and is not ready.
    fn while_the_canary_boots(&self, meanwhile: impl Fn()) {
        std::fs::remove_file(self.scene.path("gate")).expect("it was there");
        self.master.signal(libc::SIGUSR2);
        let status = self.master.wait_status("the canary starts", |status| rows(status).len() == WORKERS + 1);
        let canary = rows(&status).into_iter().find(|row| row["state"] == "starting").expect("the canary");
        let pid = canary["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
        let v2 = self.programs.path("v2");
        eventually("the canary has begun", || (identity(&exe(pid)) == identity(&v2)).then_some(()));
        meanwhile();
        self.scene.write("gate", "");
    }

    #[track_caller]
    fn assert_refused(&self, verdict: &Value, reason: &str) {
        assert_eq!(verdict["outcome"], "aborted", "{verdict}\n{}", self.master.log_text());
        let said = verdict["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{said:?} does not say {reason:?}: {}", self.master.log_text());
        assert_eq!(verdict["workers"].as_array().map(Vec::len), Some(1), "{verdict}");
        let status = self.master.status();
        assert_eq!(ready_pids(&status).len(), WORKERS, "the verdict came before all were ready: {status}");
        assert_eq!(status["master"]["state"], "running", "{status}");
        assert_eq!((&status["forks"]["crashes"], &status["forks"]["budgetLeft"]), (&json!(0), &json!(100)));
    }

    /// Every worker that serves runs this program, and is of this generation.
    #[track_caller]
    fn assert_program(&self, name: &str, generation: u64) {
        self.master.wait_ready(WORKERS);
        let status = self.master.status();
        for row in rows(&status) {
            assert_eq!(row["generation"], generation, "{status}");
        }
        for pid in ready_pids(&status) {
            let program = self.programs.path(name);
            assert_eq!(identity(&exe(pid)), identity(&program), "pid {pid} runs another program than {name}");
        }
        assert_eq!(status["master"]["generation"], generation);
    }

    #[track_caller]
    fn assert_old_program_comes_back(&self) {
        self.assert_program("v1", 1);
        let victim = *self.master.wait_ready(WORKERS).first().expect("some");
        sys::kill(victim, libc::SIGKILL);
        self.master.wait_status("one crash", |status| {
            status["forks"]["crashes"] == 1 && !ready_pids(status).contains(&victim)
        });
        self.assert_program("v1", 1);
    }

    /// A good program, and a restart to it, under load.
    #[track_caller]
    fn mend(&self, generation: u64) {
        let eye = Eye::open(self);
        self.put_program("v2");
        let verdict = self.restart();
        assert_eq!(verdict["outcome"], "completed", "{verdict}\n{}", self.master.log_text());
        eye.close();
        self.assert_program("v2", generation);
    }

    fn close(self) {
        self.master.assert_no_zombies();
        self.master.stop(&self.scene);
    }
}

/// Load on a site, and a look at how many of its workers are ready.
struct Eye {
    load: Load,
    watch: Watch,
}

impl Eye {
    fn open(site: &Site<'_>) -> Self {
        let address = site.master.address("http");
        let load = Load::begin(&address, Connections::New, 1).and(&address, Connections::KeepAlive, 1);
        Eye { load, watch: Watch::begin(&site.master) }
    }

    #[track_caller]
    fn close(self) -> Ledger {
        let (seen, ledger) = (self.watch.end(), self.load.end());
        ledger.assert_lossless();
        assert!(seen.fewest_ready >= WORKERS, "{}", seen.leanest);
        ledger
    }
}

fn exe(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
