//! Every kind of edit is noticed once, and after it the next one; nothing else is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;

/// Longer than any machine takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Two changes would be two by then.
const SECOND_CHANGE: Duration = Duration::from_millis(300);

/// A folder for a test, removed with all that it holds.
struct Ground(PathBuf);

impl Ground {
    /// `src/app.py`, and two releases of it with `current` leading to the first.
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("proteus-watch-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        let ground = Ground(fs::canonicalize(folder).unwrap());
        for file in ["src/app.py", "r1/src/app.py", "r2/src/app.py", "far/lib/part.py", "far/next/part.py"] {
            ground.write(file, "1");
        }
        ground.link("r1", "current");
        ground
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Makes the folders that it takes.
    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// In one step, also where there is something.
    fn link(&self, target: &str, path: &str) {
        let new = self.at(".new-link");
        symlink(target, &new).unwrap();
        fs::rename(new, self.at(path)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.at(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn watch(&self, root: &str) -> Watch {
        Watch::begin(&[self.at(root)]).unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// What changes, from now on, and the thread that says so.
fn changes(mut watch: Watch) -> (Receiver<PathBuf>, JoinHandle<()>) {
    let (sender, changes) = channel();
    let thread = thread::spawn(move || {
        while let Some(path) = watch.next_change() {
            if sender.send(path).is_err() {
                return;
            }
        }
    });
    (changes, thread)
}

type Act = fn(&Ground);

/// The name of an edit, what is there before it, the path that is watched, the edit, and the file that is edited after it.
type Edit = (&'static str, Act, &'static str, Act, &'static str);

const EDITS: [Edit; 29] = [
    ("write", |_| {}, "src", |on| on.write("src/app.py", "22"), "src/app.py"),
    ("append", |_| {}, "src/app.py", |on| on.write("src/app.py", "22"), "src/app.py"),
    ("mode", |_| {}, "src", chmod, "src/app.py"),
    ("new-file", |_| {}, "src", |on| on.write("src/new.py", ""), "src/new.py"),
    ("new-folder", |_| {}, "src", |on| on.write("src/a/b/new.py", ""), "src/a/b/new.py"),
    ("removal", |on| on.write("src/old.py", ""), "src", |on| on.remove("src/old.py"), "src/app.py"),
    ("rename-over", |_| {}, "src", rename_over, "src/app.py"),
    ("rename-over-a-root", |_| {}, "src/app.py", rename_over, "src/app.py"),
    (
        "folder-renamed",
        |on| on.write("src/a/x.py", ""),
        "src",
        |on| on.rename("src/a", "src/b"),
        "src/b/x.py",
    ),
    ("config-map", config_map, "config", swap_config_map, "config/app.py"),
    ("config-map-file", config_map, "config/app.py", swap_config_map, "config/app.py"),
    (
        "config-map-twice",
        config_map,
        "config",
        |on| {
            swap_config_map(on);
            on.link("..v1", "config/..data");
            on.link("..v2", "config/..data");
        },
        "config/app.py",
    ),
    ("release", |_| {}, "current/src", |on| on.link("r2", "current"), "current/src/app.py"),
    ("release-root", |_| {}, "current", |on| on.link("r2", "current"), "current/src/app.py"),
    ("release-file", |_| {}, "current/src/app.py", |on| on.link("r2", "current"), "current/src/app.py"),
    (
        "link-above-link",
        |on| {
            on.write("a/x", "");
            on.link("../current", "a/now");
        },
        "a/now/src",
        |on| on.link("r2", "current"),
        "a/now/src/app.py",
    ),
    (
        "far-file",
        |on| on.link("../far/lib/part.py", "src/part.py"),
        "src",
        |on| on.write("far/lib/part.py", "22"),
        "src/part.py",
    ),
    (
        "far-file-replaced",
        |on| on.link("../far/lib/part.py", "src/part.py"),
        "src",
        |on| on.rename("far/next/part.py", "far/lib/part.py"),
        "src/part.py",
    ),
    (
        "far-folder",
        |on| on.link("../far/lib", "src/lib"),
        "src",
        |on| on.write("far/lib/part.py", "22"),
        "src/lib/part.py",
    ),
    (
        "far-folder-new",
        |on| on.link("../far/lib", "src/lib"),
        "src",
        |on| on.write("far/lib/more/new.py", ""),
        "src/lib/more/new.py",
    ),
    (
        "far-folder-swapped",
        |on| on.link("../far/lib", "src/lib"),
        "src",
        |on| on.link("../far/next", "src/lib"),
        "src/lib/part.py",
    ),
    (
        "far-chain",
        |on| {
            on.link("lib", "far/now");
            on.link("../far/now/part.py", "src/part.py");
        },
        "src",
        |on| on.link("next", "far/now"),
        "src/part.py",
    ),
    (
        "link-turned",
        |on| {
            on.write("src/b.py", "1");
            on.link("app.py", "src/x.py");
        },
        "src",
        |on| on.link("b.py", "src/x.py"),
        "src/x.py",
    ),
    (
        "root-anew",
        |_| {},
        "src",
        |on| {
            on.remove("src");
            on.write("src/app.py", "22");
        },
        "src/app.py",
    ),
    (
        "parent-anew",
        |on| on.write("a/b/src/app.py", "1"),
        "a/b/src",
        |on| {
            on.remove("a");
            on.write("a/b/src/app.py", "22");
        },
        "a/b/src/app.py",
    ),
    (
        "parent-swapped",
        |on| {
            on.write("a/b/src/app.py", "1");
            on.write("c/b/src/app.py", "2");
        },
        "a/b/src",
        |on| {
            on.rename("a", "old");
            on.rename("c", "a");
        },
        "a/b/src/app.py",
    ),
    (
        "link-to-root",
        |on| on.link("src/app.py", "main.py"),
        "main.py",
        |on| on.write("src/app.py", "22"),
        "main.py",
    ),
    (
        "root-anew-later",
        |_| {},
        "src",
        |on| {
            on.remove("src");
            thread::sleep(3 * QUIET);
            on.write("src/app.py", "22");
        },
        "src/app.py",
    ),
    (
        "parent-anew-later",
        |on| on.write("a/b/src/app.py", "1"),
        "a/b/src",
        |on| {
            on.remove("a");
            thread::sleep(3 * QUIET);
            on.write("a/b/src/app.py", "22");
        },
        "a/b/src/app.py",
    ),
];

fn chmod(on: &Ground) {
    fs::set_permissions(on.at("src/app.py"), fs::Permissions::from_mode(0o700)).unwrap();
}

fn rename_over(on: &Ground) {
    on.write("next", "22");
    on.rename("next", "src/app.py");
}

/// As Kubernetes makes it: a file is a link through `..data`, which is swapped.
fn config_map(on: &Ground) {
    on.write("config/..v1/app.py", "1");
    on.link("..v1", "config/..data");
    on.link("..data/app.py", "config/app.py");
}

fn swap_config_map(on: &Ground) {
    on.write("config/..v2/app.py", "2");
    on.link("..v2", "config/..data");
    if on.at("config/..v1").exists() {
        on.write("config/..v1/app.py", "1"); // for whoever goes back
    }
}

#[test]
fn every_kind_of_edit_is_one_change_and_so_is_the_next() {
    // A few at a time: the system has not many watchers to give.
    for edits in EDITS.chunks(9) {
        thread::scope(|scope| {
            for &edit in edits {
                thread::Builder::new().name(edit.0.into()).spawn_scoped(scope, move || play(edit)).unwrap();
            }
        });
    }
}

fn play((name, prepare, root, act, next): Edit) {
    let ground = Ground::new(name);
    prepare(&ground);
    let (changes, thread) = changes(ground.watch(root));
    act(&ground);
    let one_change = |what: &str| {
        let first = changes.recv_timeout(PATIENCE);
        assert!(first.is_ok(), "{name}: {what} goes unnoticed");
        let second = changes.recv_timeout(SECOND_CHANGE);
        assert!(second.is_err(), "{name}: {what} is two changes: {first:?} {second:?}");
    };
    one_change("the edit");
    ground.write(next, "333");
    one_change("the edit after it");
    drop(changes);
    ground.write(next, "4444");
    thread.join().unwrap();
}

#[test]
fn what_does_not_count_is_no_change() {
    let ground = Ground::new("nothing");
    ground.link("../far/lib", "src/lib");
    let mut watch = ground.watch("src");
    let acts: [Act; 11] = [
        |_| {},
        |on| drop(fs::read(on.at("src/app.py")).unwrap()),
        |on| fs::create_dir(on.at("src/empty")).unwrap(),
        |on| on.link(".", "src/circle"),
        |on| on.link("../..", "src/above"),
        |on| on.link("/proc/self", "src/.process"),
        |on| on.write("src/.app.py.swx", ""),
        |on| on.write("src/target/x", ""),
        |on| on.write("far/other.py", ""),
        |on| on.link("r2", "current"),
        |on| {
            on.rename("src", "away");
            on.rename("away", "src");
        },
    ];
    for (number, act) in acts.into_iter().enumerate() {
        act(&ground);
        assert_eq!(watch.look(), None, "act {number}");
    }
    // While it is away, it is waited for.
    ground.rename("src", "away");
    assert_eq!(watch.look(), None);
    ground.write("away/app.py", "22");
    ground.rename("away", "src");
    assert_eq!(watch.look(), Some(ground.at("src/app.py")));
}

#[test]
fn links_that_lead_in_circles_end() {
    let ground = Ground::new("circles");
    for (target, link) in [("../far", "src/far"), ("../src", "far/src"), ("a", "src/b"), ("b", "src/a")] {
        ground.link(target, link);
    }
    let mut watch = ground.watch("src");
    assert_eq!(watch.look(), None);
    ground.write("far/lib/part.py", "22");
    assert_eq!(watch.look(), Some(ground.at("far/lib/part.py")));
}

#[test]
fn only_notices_of_what_is_watched_wake() {
    let ground = Ground::new("notices");
    config_map(&ground);
    ground.link("../far/lib/part.py", "config/part.py");
    let watch = ground.watch("config");
    let table = [
        ("config/app.py", true),
        ("config/..data", true),
        ("config/..v1/app.py", true),
        ("config/new.py", true),
        ("config", true),
        ("far", true),
        ("far/lib/part.py", true),
        ("config/.hidden", false),
        ("config/app.log", false),
        ("config/..v1/other.py", false),
        ("far/lib/other.py", false),
        ("beside.py", false),
    ];
    for (path, wakes) in table {
        assert_eq!(watch.folders.concern(&ground.at(path)), wakes, "{path}");
    }
    assert!(!watch.folders.concern(Path::new("/somewhere/else")));
}

#[test]
fn a_path_that_is_not_there_is_refused() {
    let refusal = Watch::begin(&["/no/such/path".into()]).err().unwrap();
    assert!(refusal.starts_with("--watch /no/such/path: no such file"), "{refusal}");
}

#[test]
fn a_file_named_itself_is_watched_whatever_its_name() {
    let ground = Ground::new("file");
    ground.write("target.log", "");
    let mut watch = ground.watch("target.log");
    ground.write("beside.py", "");
    assert_eq!(watch.look(), None);
    ground.write("new", "x");
    ground.rename("new", "target.log");
    assert_eq!(watch.look(), Some(ground.at("target.log")));
}
