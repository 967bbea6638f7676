//! Workers whose words try to forge lines of the log, or to steer the terminal of whoever reads it.

use std::process::Command;

use serde_json::json;

use crate::harness::master::role_settings;
use crate::harness::{Master, Scene, proteus};

/// A line of its own, colours, the top of the screen, C1, and text that runs backwards.
pub(crate) const EVIL: &str =
    "x\n[2026-01-01T00:00:00Z ERROR forged] y\u{1b}[31m\u{1b}[H\u{9b}2J\u{202e}z\u{2028}\r";
/// The same as the log has it.
const SAFE: &str =
    "x\\n[2026-01-01T00:00:00Z ERROR forged] y\\u{1b}[31m\\u{1b}[H\\u{9b}2J\\u{202e}z\\u{2028}\\r";

#[test]
fn no_word_of_a_worker_reaches_the_log_raw() {
    let scene = Scene::new("forged");
    let mut settings = role_settings("forges");
    settings["worker"] = json!(1);
    settings["listen"] = json!([]);
    settings["ready"] = json!("notify");
    settings["backoff"] = json!({ "initial": 60000, "max": 60000 });
    let mut command = Master::command(&scene, &settings);
    command.env("RUST_LOG_STYLE", "never");
    let master = Master::start(&scene, command);
    let status = master.wait_status("its second end", |status| status["forks"]["crashes"] == 2);
    for said in
        ["asked to listen: ", "a message handler panicked: ", "worker 1 (slot 0) died soon after its start"]
    {
        let line = master.wait_log(said);
        assert!(line.contains(SAFE), "{line}");
    }
    let log = master.log_text();
    for line in log.lines() {
        let harmful = |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}');
        assert!(line.starts_with("[20") && !line.contains(harmful), "{line:?}");
        // A line break on stderr is one: what follows it has the worker's name before it.
        let named = line.contains("worker::stderr] worker ");
        assert!(!line.contains("Z ERROR forged") || line.contains(SAFE) || named, "{line:?}");
    }
    let last = &status["workers"][0]["lastExit"];
    assert_eq!(last["reason"], EVIL, "JSON has escapes of its own");
    assert_eq!(last["stderr"].as_array().expect("lines")[0], "x", "raw, too");
    for words in [&["status"][..], &["status", "--json"]] {
        let shown = Command::new(proteus())
            .args(words)
            .args(["--api".into(), format!("unix:{}", master.api().display())])
            .output()
            .expect("it runs");
        let shown = String::from_utf8(shown.stdout).expect("text");
        let harmful =
            |letter: char| letter != '\n' && letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}');
        assert!(!shown.contains(harmful), "{words:?}: {shown:?}");
        assert!(shown.contains("forged"), "{words:?}: {shown:?}");
    }
    master.stop(&scene);
}
