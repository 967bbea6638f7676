//! Releases behind a link that moves on: what starts after a refused restart is the old release, whole.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, rows};
use crate::harness::tools::in_path;
use crate::harness::{Master, Scene, eventually, proc, skipped, sys, wait_until};

fn run(command: &mut Command) {
    assert!(command.status().expect("it starts").success(), "{command:?}");
}

/// Lets a symlink lead elsewhere, in one step.
fn point(link: &Path, target: &str) {
    let next = link.with_extension("next");
    symlink(target, &next).expect("made");
    std::fs::rename(next, link).expect("in its place");
}

/// Folders `r1` and `r2`, and `current`, which leads to the first.
fn releases(scene: &Scene) -> PathBuf {
    for release in ["r1", "r2"] {
        std::fs::create_dir(scene.path(release)).expect("made");
    }
    let current = scene.path("current");
    point(&current, "r1");
    current
}

/// What workers of a release say of it: `seen-SLOT-ID`, each on a line of its own.
fn said(scene: &Scene, slot: u64, worker: u64) -> String {
    eventually("a worker's word", || {
        let text = std::fs::read_to_string(scene.path(&format!("seen-{slot}-{worker}"))).ok()?;
        text.strip_suffix("\n.").map(str::to_owned)
    })
}

/// The workers that are ready, slot by slot, each with its number.
#[track_caller]
fn settled(master: &Master, workers: usize) -> Vec<(u64, u64, u32)> {
    let status = master.wait_status("all ready", |status| {
        let rows = rows(status);
        rows.len() == workers && rows.iter().all(|row| row["state"] == "ready")
    });
    let number = |row: &Value, key: &str| row[key].as_u64().expect("a number");
    let seat =
        |row: &Value| (number(row, "slot"), number(row, "id"), number(row, "pid").try_into().expect("a pid"));
    rows(&status).iter().map(seat).collect()
}

/// What all workers say, once they have all been replaced by crashes.
#[track_caller]
fn after_crashes(scene: &Scene, master: &Master, workers: usize) -> Vec<String> {
    let before = settled(master, workers);
    for (_, _, pid) in &before {
        sys::kill(*pid, libc::SIGKILL);
    }
    let last = before.iter().map(|(_, id, _)| *id).max().expect("workers");
    master.wait_status("all replaced", |status| {
        rows(status).iter().all(|row| row["id"].as_u64().is_some_and(|id| id > last))
    });
    settled(master, workers).iter().map(|(slot, id, _)| said(scene, *slot, *id)).collect()
}

fn restart(master: &Master) -> Value {
    serde_json::from_str(&master.ask("/restart?wait=19s").body).expect("a verdict")
}

/// The restart to `r2` is refused; then every worker crashes: all of them are of `r1`. Mended, it is taken.
#[track_caller]
fn refused_then_mended(scene: &Scene, settings: &Value, expected: impl Fn(&str) -> String, mend: impl Fn()) {
    let master = Master::run(scene, settings);
    let workers = usize::try_from(settings["worker"].as_u64().expect("a number")).expect("small");
    let say =
        || settled(&master, workers).iter().map(|(slot, id, _)| said(scene, *slot, *id)).collect::<Vec<_>>();
    assert_eq!(say(), vec![expected("r1"); workers]);
    point(&scene.path("current"), "r2");
    let verdict = restart(&master);
    assert_eq!(verdict["outcome"], "aborted", "{verdict}\n{}", master.log_text());
    assert_eq!(say(), vec![expected("r1"); workers], "{}", master.log_text());
    assert_eq!(
        after_crashes(scene, &master, workers),
        vec![expected("r1"); workers],
        "{}",
        master.log_text()
    );
    mend();
    let verdict = restart(&master);
    assert_eq!(verdict["outcome"], "completed", "{verdict}\n{}", master.log_text());
    assert_eq!(say(), vec![expected("r2"); workers]);
    assert_eq!(after_crashes(scene, &master, workers), vec![expected("r2"); workers]);
    master.stop(scene);
}

const APP: &str = r#"
import os, signal, sys
import release
own = __import__("pathlib").Path("own").read_text().strip()
where = os.path.join(os.environ["SCENE"], "seen-%s-%s" % (os.environ["PROTEUS_SLOT"], os.environ["PROTEUS_WORKER_ID"]))
with open(where, "w") as seen:
    seen.write("\n".join([own, release.VERSION, sys.prefix, sys.argv[0], os.getcwd()]) + "\n.")
os.write(int(os.environ["PROTEUS_CHANNEL_FD"]), b'{"cmd":"PROTEUS_READY"}\n')
signal.pause()
"#;

/// A virtual environment of its own in each release, whose package fails in the second one.
fn virtual_environments(scene: &Scene) -> bool {
    for release in ["r1", "r2"] {
        let folder = scene.path(release);
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--without-pip"]).arg(folder.join(".venv"));
        if !venv.output().is_ok_and(|made| made.status.success()) {
            return false;
        }
        let library =
            std::fs::read_dir(folder.join(".venv/lib")).expect("there").next().expect("one").expect("read");
        let fails = if release == "r2" {
            "import os\nif os.environ['PROTEUS_SLOT'] == '1': raise ImportError\n"
        } else {
            ""
        };
        let package = format!("{fails}VERSION = '{release}'\n");
        std::fs::write(library.path().join("site-packages/release.py"), package).expect("written");
        std::fs::write(folder.join("own"), release).expect("written");
        std::fs::write(folder.join("app.py"), APP).expect("written");
    }
    true
}

fn mend_package(scene: &Scene) {
    let library =
        std::fs::read_dir(scene.path("r2/.venv/lib")).expect("there").next().expect("one").expect("read");
    std::fs::write(library.path().join("site-packages/release.py"), "VERSION = 'r2'\n").expect("written");
    drop(std::fs::remove_dir_all(library.path().join("site-packages/__pycache__")));
}

fn python_settings(scene: &Scene) -> Value {
    json!({ "worker": 2, "canary": 0, "ready": "notify", "env": { "SCENE": scene.folder } })
}

#[test]
fn a_virtual_environment_of_python() {
    let scene = Scene::new("mixed-venv");
    let current = releases(&scene);
    if !virtual_environments(&scene) {
        return skipped("a_virtual_environment_of_python", "there is no python3 with venv here");
    }
    let mut settings = python_settings(&scene);
    settings["exec"] = json!(current.join(".venv/bin/python"));
    settings["args"] = json!(["app.py"]);
    settings["cwd"] = json!(current);
    let expected = |release: &str| {
        let folder = scene.path(release).display().to_string();
        format!("{release}\n{release}\n{folder}/.venv\napp.py\n{folder}")
    };
    refused_then_mended(&scene, &settings, expected, || mend_package(&scene));
}

/// A script whose first line leads through the link, as those that installers write do.
#[test]
fn an_interpreter_behind_the_link() {
    let scene = Scene::new("mixed-shebang");
    let current = releases(&scene);
    if !virtual_environments(&scene) {
        return skipped("an_interpreter_behind_the_link", "there is no python3 with venv here");
    }
    for release in ["r1", "r2"] {
        let first = format!("#!{}/.venv/bin/python\n", current.display());
        scene.write_program(&format!("{release}/serve"), &(first + APP));
    }
    let mut settings = python_settings(&scene);
    settings["exec"] = json!(current.join("serve"));
    settings["cwd"] = json!(current);
    let expected = |release: &str| {
        let folder = scene.path(release).display().to_string();
        format!("{release}\n{release}\n{folder}/.venv\n{folder}/serve\n{folder}")
    };
    refused_then_mended(&scene, &settings, expected, || mend_package(&scene));
}

/// The entry file is the same one in both releases, by a hard link: it does not say which release it is of.
#[test]
fn a_script_that_both_releases_share() {
    let scene = Scene::new("mixed-hard-link");
    let current = releases(&scene);
    let script = "#!/bin/sh\nhere=$(dirname \"$0\")\n. \"$here/release\"\n\
        { echo \"$version\"; echo \"$1\"; echo \"$LIBRARY\"; printf .; } > \"$SCENE/seen-$PROTEUS_SLOT-$PROTEUS_WORKER_ID\"\n\
        echo '{\"cmd\":\"PROTEUS_READY\"}' >&$PROTEUS_CHANNEL_FD\nexec sleep 1000\n";
    scene.write_program("r1/serve", script);
    std::fs::hard_link(scene.path("r1/serve"), scene.path("r2/serve")).expect("linked");
    scene.write("r1/release", "version=r1");
    scene.write("r2/release", "version=r2; exit 7");
    let settings = json!({
        "worker": 1, "canary": 0, "ready": "notify",
        "exec": current.join("serve"), "args": [format!("--root={}/public", current.display())],
        "env": { "SCENE": scene.folder, "LIBRARY": format!("/lib:{}/lib", current.display()) },
    });
    let expected = |release: &str| {
        let folder = scene.path(release).display().to_string();
        format!("{release}\n--root={folder}/public\n/lib:{folder}/lib")
    };
    refused_then_mended(&scene, &settings, expected, || drop(scene.write("r2/release", "version=r2")));
}

const SERVER: &str = r"
const fs = require('fs');
const { version } = require('./release');
const { SCENE, PROTEUS_SLOT, PROTEUS_WORKER_ID } = process.env;
fs.writeFileSync(`${SCENE}/seen-${PROTEUS_SLOT}-${PROTEUS_WORKER_ID}`, `${version}\n${process.argv[1]}\n.`);
process.send('ready');
setInterval(() => {}, 1000);
";

/// `server.js` itself, and as an argument of `node`, absolute and from the working directory; linked hard.
#[test]
fn a_script_of_node() {
    if in_path("node").is_none() {
        return skipped("a_script_of_node", "there is no node here");
    }
    for form in ["exec", "argument", "relative"] {
        let scene = Scene::new("mixed-node");
        let current = releases(&scene);
        scene.write("r1/server.js", SERVER);
        std::fs::hard_link(scene.path("r1/server.js"), scene.path("r2/server.js")).expect("linked");
        scene.write("r1/release.js", "exports.version = 'r1'");
        scene.write("r2/release.js", "process.exit(7)");
        let mut settings =
            json!({ "worker": 1, "canary": 0, "ready": "notify", "env": { "SCENE": scene.folder } });
        match form {
            "exec" => settings["exec"] = json!(current.join("server.js")),
            "argument" => {
                settings["exec"] = json!("node");
                settings["args"] = json!(["--no-warnings", current.join("server.js")]);
            }
            _ => {
                settings["exec"] = json!("node");
                settings["args"] = json!(["current/server.js"]);
                settings["cwd"] = json!(scene.folder);
            }
        }
        let expected =
            |release: &str| format!("{release}\n{}", scene.path(release).join("server.js").display());
        let mend = || drop(scene.write("r2/release.js", "exports.version = 'r2'"));
        refused_then_mended(&scene, &settings, expected, mend);
    }
}

/// Machine code, the same file in both releases: its name says where it belongs.
#[test]
fn a_program_in_machine_code() {
    let scene = Scene::new("mixed-binary");
    let current = releases(&scene);
    run(Command::new("sh").args(["-c", "cp \"$(command -v sleep)\" \"$0\""]).arg(scene.path("r1/server")));
    std::fs::hard_link(scene.path("r1/server"), scene.path("r2/server")).expect("linked");
    let mut settings = idle_settings();
    settings["exec"] = json!(current.join("server"));
    let master = Master::run(&scene, &settings);
    let called = |release: &str| {
        let pid = settled(&master, 1)[0].2;
        let expected = format!("{} 1000", scene.path(release).join("server").display());
        wait_until("its name", || proc::command(pid).trim_end() == expected);
        pid
    };
    let first = called("r1");
    point(&current, "r2");
    sys::kill(first, libc::SIGKILL);
    master.wait_status("a successor", |status| rows(status)[0]["id"] == 2);
    called("r1");
    assert_eq!(restart(&master)["outcome"], "completed");
    called("r2");
    master.stop(&scene);
}

/// Folders that change places, with no link: the old one is followed to where it lies now.
#[test]
fn a_folder_that_was_moved_away() {
    let scene = Scene::new("mixed-moved");
    for release in ["app", "app.new"] {
        std::fs::create_dir(scene.path(release)).expect("made");
        scene.write(&format!("{release}/version"), release);
    }
    scene.write_program(
        "app/serve",
        "#!/bin/sh\n{ cat \"$(dirname \"$0\")/version\"; echo; printf .; } > \
         \"$SCENE/seen-$PROTEUS_SLOT-$PROTEUS_WORKER_ID\"\nexec sleep 1000\n",
    );
    std::fs::hard_link(scene.path("app/serve"), scene.path("app.new/serve")).expect("linked");
    let settings = json!({
        "worker": 1, "canary": 0, "minUptime": 50, "exec": scene.path("app/serve"), "env": { "SCENE": scene.folder },
    });
    let master = Master::run(&scene, &settings);
    assert_eq!(said(&scene, 0, settled(&master, 1)[0].1), "app");
    std::fs::rename(scene.path("app"), scene.path("app.old")).expect("moved");
    std::fs::rename(scene.path("app.new"), scene.path("app")).expect("moved");
    assert_eq!(after_crashes(&scene, &master, 1), ["app"]);
    assert_eq!(restart(&master)["outcome"], "completed");
    assert_eq!(said(&scene, 0, settled(&master, 1)[0].1), "app.new");
    master.stop(&scene);
}
