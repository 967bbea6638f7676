//! A good guest: the cluster inside a program that has a life of its own, and the service in one closure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::harness::master::{role_command, rows};
use crate::harness::{Master, Scene, pause, proc, sample_or_full, sys, wait_until};

/// Plays the role to its end; what it says on stderr is shown when that is not the end expected.
#[track_caller]
fn play(role: &str, expected: impl Fn(ExitStatus) -> bool) {
    let scene = Scene::new(role.split(':').next().unwrap());
    let mut host = Master::start(&scene, role_command(role));
    let status = host.wait_exit();
    assert!(expected(status), "{role}: {status}\n{}", host.log_text());
    scene.assert_nothing_left();
}

#[track_caller]
fn play_well(role: &str) {
    play(role, |status| status.success());
}

#[test]
fn a_thousand_children_of_the_host_are_never_reaped_by_the_cluster() {
    play_well(&format!("children:{}", sample_or_full(250, 1000)));
}

#[test]
fn a_host_that_reaps_our_workers_is_noticed_and_survived() {
    play_well("thief");
}

#[test]
fn after_the_end_the_host_is_as_it_was() {
    play("before-and-after", |status| status.signal() == Some(libc::SIGINT));
}

#[test]
fn after_the_end_of_a_cluster_with_an_api_the_host_is_as_it_was() {
    play("before-and-after:api", |status| status.signal() == Some(libc::SIGINT));
}

#[test]
fn orders_before_during_and_after_the_run() {
    play_well("orders");
}

#[test]
fn panics_of_the_host_harm_nothing() {
    play_well("panics");
}

#[test]
fn signals_may_stay_the_hosts_own() {
    play_well("own-signals");
}

#[test]
fn an_error_of_the_closure_is_the_visible_cause() {
    let scene = Scene::new("closure-fails");
    let master = Master::start(&scene, role_command("main:fails"));
    master.wait_ready(2);
    scene.write("fail", "");
    let failed = |reason: &str, code: i32| {
        let reason = reason.to_owned();
        move |status: &serde_json::Value| {
            let mut exits = rows(status).into_iter().map(|row| row["lastExit"].clone());
            exits.any(|exit| exit["reason"] == reason.as_str() && exit["code"] == code)
        }
    };
    master.wait_status("the cause is told", failed("no database\nat all", 1));
    std::fs::remove_file(scene.path("fail")).unwrap();
    master.wait_log(" failed: no database");
    master.wait_log("Error: the worker failed: no database");
    master.wait_ready(2);
    master.stop(&scene);
    let master = Master::start(&scene, role_command("main:panics"));
    master.wait_ready(2);
    scene.write("fail", "");
    master.wait_status("the panic is told", failed("panicked: at the disco", 101));
    std::fs::remove_file(scene.path("fail")).unwrap();
    master.wait_ready(2);
    master.stop(&scene);
}

#[test]
fn work_in_flight_is_waited_for() {
    let scene = Scene::new("in-flight");
    let mut master = Master::start(&scene, role_command("main:in-flight"));
    let workers = master.wait_ready(2);
    master.signal(libc::SIGTERM);
    wait_until("the closure returned", || scene.path("returned").exists());
    assert!(!scene.path("done").exists());
    assert!(workers.iter().all(|pid| proc::is_alive(*pid)), "{}", master.log_text());
    scene.write("finish", "");
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    assert!(scene.path("done").exists());
    for worker in 1..=2 {
        master.wait_log(&format!("worker {worker} (slot {}) has left: exit status 0", worker - 1));
    }
    scene.assert_nothing_left();
}

#[test]
fn a_worker_whose_master_is_gone_disconnects() {
    let scene = Scene::new("orphaned");
    let master = Master::start(&scene, role_command("main:orphaned"));
    master.wait_ready(2);
    sys::kill(master.pid(), libc::SIGKILL);
    wait_until("both left by themselves", || (0..2).all(|slot| scene.path(&format!("left-{slot}")).exists()));
    scene.assert_nothing_left();
}

#[test]
fn the_exit_status_of_main() {
    let scene = Scene::new("exit-status");
    for (signal, code) in [(libc::SIGTERM, 0), (libc::SIGQUIT, 1)] {
        let mut master = Master::start(&scene, role_command("main:in-flight"));
        master.wait_ready(2);
        scene.write("finish", "");
        master.signal(signal);
        assert_eq!(master.wait_exit().code(), Some(code), "{}", master.log_text());
    }
    let mut master = Master::start(&scene, role_command("main:never-starts"));
    assert_eq!(master.wait_exit().code(), Some(3), "{}", master.log_text());
    master.wait_log("giving up: no worker is ready");
    let mut master = Master::start(&scene, role_command("main:taken"));
    assert_eq!(master.wait_exit().code(), Some(1), "{}", master.log_text());
    let line = master.wait_log("Error: ");
    assert!(line.starts_with("Error: listener http") && line.ends_with("address already in use"), "{line}");
    pause();
    scene.assert_nothing_left();
}
