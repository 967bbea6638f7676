//! A bad release under load: the restart ends with its reason, and the old workers serve on as if nothing were.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::load::{Connections, Load};
use crate::harness::master::{ready_pids, role_settings};
use crate::harness::watch::Watch;
use crate::harness::{Master, Scene, record};

const WORKERS: usize = 4;

/// A service whose program is `current`, a symlink to one of its releases.
struct Releases<'a> {
    scene: &'a Scene,
}

impl Releases<'_> {
    /// A release that plays this role; before the first exec, since a file just written may be busy.
    fn write(&self, role: &str) -> PathBuf {
        let name = format!("release-{}", role.replace(':', "-"));
        let path = self.scene.write(&name, format!("#!/bin/sh\nPROTEUS_TEST_ROLE={role} exec \"$@\"\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn deploy(&self, release: &PathBuf) {
        let next = self.scene.path("next");
        symlink(release, &next).unwrap();
        std::fs::rename(&next, self.current()).unwrap();
    }

    fn current(&self) -> PathBuf {
        self.scene.path("current")
    }

    fn settings(&self) -> Value {
        let mut settings = role_settings("");
        let mut args = settings["args"].as_array().cloned().unwrap_or_default();
        args.insert(0, settings["exec"].clone());
        settings["args"] = json!(args);
        settings["exec"] = json!(self.current());
        settings["worker"] = json!(WORKERS);
        settings["canary"] = json!(1000);
        settings
    }
}

/// A restart to a release that must be refused, for a reason that says this.
#[track_caller]
fn refused(master: &Master, id: u64, reason: &str) {
    let before = ready_pids(&master.status());
    master.signal(libc::SIGUSR2);
    let status = master.wait_status(&format!("restart {id} aborted"), |status| {
        status["restart"]["id"] == id && status["restart"]["state"] == "aborted"
    });
    let said = status["restart"]["reason"].as_str().unwrap_or_default();
    assert!(said.contains(reason), "{said:?} does not say {reason:?}: {}", master.log_text());
    assert!(ready_pids(&status).is_superset(&before), "an old worker has gone: {status}");
    assert_eq!(status["master"]["generation"], 1);
}

#[test]
fn bad_releases_are_refused_and_a_good_one_follows() {
    let scene = Scene::new("bad-release");
    let releases = Releases { scene: &scene };
    let [good, crashes, dies] = ["threads", "exits:7", "brief:20"].map(|role| releases.write(role));
    let no_program = scene.write("release-not-executable", "#!/bin/sh\n");
    releases.deploy(&good);
    let master = Master::run(&scene, &releases.settings());
    let first = master.wait_ready(WORKERS);
    let address = master.address("http");
    let load = Load::begin(&address, Connections::New, 2).and(&address, Connections::KeepAlive, 2);
    let watch = Watch::begin(&master);
    let bad = [
        (crashes, "exit status 7"),
        (scene.path("missing"), "could not be started"),
        (dies, "exit status 9"),
        (no_program, "could not be started"),
    ];
    for (id, (release, reason)) in (1..).zip(&bad) {
        releases.deploy(release);
        refused(&master, id, reason);
    }
    releases.deploy(&good);
    master.signal(libc::SIGUSR2);
    let id = bad.len() + 1;
    master.wait_status("the good release is out", |status| {
        status["restart"]["id"] == id && status["restart"]["state"] == "completed"
    });
    let (seen, ledger) = (watch.end(), load.end());
    record("bad-release", &ledger);
    ledger.assert_lossless();
    assert!(seen.fewest_ready >= WORKERS, "{}", seen.leanest);
    assert!(master.wait_ready(WORKERS).is_disjoint(&first));
    let status = master.status();
    assert_eq!(status["forks"]["crashes"], 0, "a failed replacement is not a crash");
    assert_eq!(status["forks"]["budgetLeft"], 100);
    assert_eq!(status["master"]["generation"], id + 1, "each refused release has used up its number");
    master.stop(&scene);
}

#[test]
fn a_mute_release_is_refused() {
    let scene = Scene::new("mute-release");
    let releases = Releases { scene: &scene };
    let [good, mute] = ["threads", "mute"].map(|role| releases.write(role));
    releases.deploy(&good);
    let mut settings = releases.settings();
    // Also how long the good ones may take to start, on a machine with other things to do.
    settings["readyTimeout"] = json!(5000);
    let master = Master::run(&scene, &settings);
    master.wait_ready(WORKERS);
    let load = Load::begin(&master.address("http"), Connections::New, 2);
    let watch = Watch::begin(&master);
    releases.deploy(&mute);
    refused(&master, 1, "was not ready within 5000 ms");
    let (seen, ledger) = (watch.end(), load.end());
    ledger.assert_lossless();
    assert!(seen.fewest_ready >= WORKERS, "{}", seen.leanest);
    master.wait_ready(WORKERS);
    master.stop(&scene);
}
