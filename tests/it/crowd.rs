//! More workers than one look at the sources tells of, and a master that has stood still.

use std::time::Duration;

use serde_json::json;

use crate::harness::master::shell_settings;
use crate::harness::{Master, Scene, wait_until};

/// More than the loop takes from the kernel at a time.
const WORKERS: usize = 280;

/// Longer than the watchdog's time, by less than the half at which the master blames itself.
const PAUSE: Duration = Duration::from_millis(1900);

/// All of them say that they are alive, well within the time: that a master which was stopped reads it late, and from
/// some of them only in its second look, is not their fault.
#[test]
fn many_that_say_alive_in_time_outlive_a_pause_of_the_master() {
    let scene = Scene::new("crowd");
    let script = r#"fd=$PROTEUS_CHANNEL_FD
        echo '{"cmd":"PROTEUS_HELLO"}' >&$fd
        echo '{"cmd":"PROTEUS_READY"}' >&$fd
        while ! read -r -t 0.4 line <&$fd; do echo '{"cmd":"PROTEUS_ALIVE"}' >&$fd; done"#;
    let mut settings = shell_settings(script);
    settings["exec"] = json!("bash");
    settings["worker"] = json!(WORKERS);
    settings["watchdog"] = json!(1500);
    settings["readyTimeout"] = json!(60_000);
    let master = Master::run(&scene, &settings);
    let before = master.wait_ready(WORKERS);
    master.signal(libc::SIGSTOP);
    std::thread::sleep(PAUSE);
    master.signal(libc::SIGCONT);
    // Each answer is a turn of the loop after its look at the sources.
    wait_until("it has looked again and again", || (0..3).all(|_| master.try_status().is_some()));
    assert!(!master.has_logged("counts as hung"), "{}", hung(&master));
    assert_eq!(master.wait_ready(WORKERS), before);
    master.stop(&scene);
}

fn hung(master: &Master) -> String {
    let lines = master.log_lines();
    lines.into_iter().filter(|line| line.contains("counts as hung")).collect::<Vec<_>>().join("\n")
}
