//! Two masters that start at the same moment at one address: exactly one of them has it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::harness::master::idle_settings;
use crate::harness::{Master, Scene, record, sample_or_full, wait_until};

/// Starts two at once.
fn both(scenes: &[Scene; 2], settings: &Value) -> [Master; 2] {
    let [one, other] = [0, 1].map(|at| (&scenes[at], Master::command(&scenes[at], settings)));
    [one, other].map(|(scene, command)| Master::start(scene, command))
}

/// The loser ends with 2, and says who has it; the winner goes on.
fn one_of(kind: &str, scenes: &[Scene; 2], settings: &Value, path: Option<&Path>) {
    let [first, second] = both(scenes, settings);
    wait_until(&format!("{kind}: one has given up"), || {
        [&first, &second].iter().any(|master| master.has_logged("address") && master.has_logged("in use"))
    });
    let (mut loser, winner, scene) =
        if first.has_logged("in use") { (first, second, &scenes[1]) } else { (second, first, &scenes[0]) };
    assert_eq!(loser.wait_exit().code(), Some(2), "{kind}: {}", loser.log_text());
    winner.wait_log("is ready; ");
    if let Some(path) = path {
        let line = loser.wait_log("in use");
        assert!(line.contains(&format!("pid {} listens there", winner.pid())), "{kind}: {line}");
        UnixStream::connect(path).expect("the winner's");
    }
    winner.stop(scene);
}

#[test]
fn share_nothing() {
    let count = sample_or_full(3, 200);
    for _ in 0..count.div_ceil(3) {
        thread::scope(|scope| {
            for round in 0..3 {
                scope.spawn(move || {
                    let scenes = [Scene::new("two-path"), Scene::new("two-path")];
                    let path = scenes[0].path("app.sock");
                    let mut settings = idle_settings();
                    settings["listen"] = json!(format!("unix:{}", path.display()));
                    if round % 2 == 1 {
                        drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale one"));
                    }
                    one_of("a path", &scenes, &settings, Some(&path));
                });
                scope.spawn(move || {
                    let scenes = [Scene::new("two-api"), Scene::new("two-api")];
                    let path = scenes[0].path("both.sock");
                    let mut settings = idle_settings();
                    settings["api"] = json!({ "listen": format!("unix:{}", path.display()) });
                    one_of("the API's path", &scenes, &settings, Some(&path));
                });
                scope.spawn(move || {
                    let scenes = [Scene::new("two-slots"), Scene::new("two-slots")];
                    let mut settings = idle_settings();
                    settings["listen"] =
                        json!({ "name": "http", "address": scenes[0].address(8080), "reusePort": true });
                    one_of("an address of slots", &scenes, &settings, None);
                });
            }
        });
    }
    record("two masters at once", format_args!("{count} rounds of three kinds"));
}
