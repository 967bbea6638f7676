//! The limit of open files: the master's is raised while it runs, the workers' stays what it was.

use std::process::Command;

use serde_json::json;

use crate::harness::master::{idle_settings, role_command};
use crate::harness::tools::in_path;
use crate::harness::{Master, Scene, proc, skipped};

/// Soft and hard.
fn limits(pid: u32) -> (String, String) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line");
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

/// Two numbers, as `prlimit` takes them.
fn limited(command: &Command, limits: &str) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={limits}")).arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn more_workers_than_the_limit_in_force_has_room_for() {
    let scene = Scene::new("open-files");
    if in_path("prlimit").is_none() {
        return skipped("open-files", "takes prlimit");
    }
    let mut settings = idle_settings();
    settings["worker"] = json!(16);
    settings["output"] = json!("log");
    let master = Master::start(&scene, limited(&Master::command(&scene, &settings), "40:400"));
    let pair = |soft: &str| (soft.to_owned(), "400".to_owned());
    for pid in master.wait_ready(16) {
        assert_eq!(limits(pid), pair("40"), "a worker's");
    }
    assert_eq!(limits(master.pid()), pair("400"), "the master's");
    assert!(proc::descriptors(master.pid()) > 40);
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    master.stop(&scene);
}

/// As many as the start allows do come up, and can be restarted.
#[test]
fn as_many_workers_as_the_hard_limit_has_room_for() {
    let scene = Scene::new("open-files-all");
    if in_path("prlimit").is_none() {
        return skipped("open-files-all", "takes prlimit");
    }
    let mut settings = idle_settings();
    settings["worker"] = json!(19);
    settings["output"] = json!("log");
    settings["listen"] = json!("127.0.0.1:0");
    let command = Master::command(&scene, &settings);
    let refused = limited(&command, "100:164").current_dir(&scene.folder).output().expect("it runs");
    let line = "proteus: 19 workers, and 1 more in a restart, take 165 open files in the master (5 each, 65 for all), \
                and it may have 164 (the hard limit: ulimit -Hn, LimitNOFILE=): raise that, or run 18 workers at most\n";
    assert_eq!((refused.status.code(), &*String::from_utf8_lossy(&refused.stderr)), (Some(2), line));
    let master = Master::start(&scene, limited(&command, "100:165"));
    master.wait_ready(19);
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    assert!(!master.has_logged("could not be started"), "{}", master.log_text());
    master.stop(&scene);
}

#[test]
fn a_host_has_its_limit_back() {
    if in_path("prlimit").is_none() {
        return skipped("open-files-host", "takes prlimit");
    }
    for changed in ["", "changed"] {
        let scene = Scene::new("open-files-host");
        let role = format!("open-files:{changed}");
        let mut command = limited(&role_command(&role), "200:400");
        command.env("PROTEUS_TEST_ROLE", role);
        let mut host = Master::start(&scene, command);
        let status = host.wait_exit();
        assert!(status.success(), "{status}\n{}", host.log_text());
        scene.assert_nothing_left();
    }
}
