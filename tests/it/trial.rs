//! What a refused release leaves behind: nothing that decides about the workers of the one before.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::harness::master::{ready_pids, rows};
use crate::harness::{Master, Scene, sys};

/// Lets the program's symlink lead elsewhere, in one step.
fn deploy(scene: &Scene, release: &Path) {
    let next = scene.path("next");
    symlink(release, &next).expect("made");
    std::fs::rename(next, scene.path("current")).expect("in its place");
}

/// The release that serves never says that it is ready; the one that is refused does, before it fails.
#[test]
fn a_refused_release_that_said_ready_leaves_the_mute_one_before_it_able_to_start() {
    let scene = Scene::new("trial-ready");
    let mute = scene.write_program("v1", "#!/bin/sh\nexec sleep 1000\n");
    let says = r#"echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD"#;
    let brief = scene.write_program("v2", &format!("#!/bin/sh\n{says}\nsleep 0.5\nexit 1\n"));
    deploy(&scene, &mute);
    let settings = json!({
        "worker": 2, "exec": scene.path("current"), "readyTimeout": 3000, "maxForkCount": 3,
    });
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    deploy(&scene, &brief);
    master.signal(libc::SIGUSR2);
    master.wait_status("the bad release is refused", |status| status["restart"]["state"] == "aborted");
    assert!(master.has_logged("is the canary and is ready"), "{}", master.log_text());
    for pid in &first {
        sys::kill(*pid, libc::SIGKILL);
    }
    let status = master.wait_status("both are replaced", |status| {
        let ready = ready_pids(status);
        assert!(status["forks"]["crashes"].as_u64() <= Some(2), "{}", master.log_text());
        ready.len() == 2 && ready.is_disjoint(&first)
    });
    assert!(rows(&status).iter().all(|row| row["generation"] == 1), "{status}");
    assert_eq!(status["forks"]["crashes"], 2);
    master.stop(&scene);
}
