//! Signals that the program around the cluster handles too: they are shared while it runs, and its own afterwards.

use serde_json::json;

use crate::harness::master::{role_command, role_settings};
use crate::harness::{Master, Scene, proc, sys};

#[track_caller]
fn lives_well(life: &str) {
    let scene = Scene::new(life);
    let mut host = Master::start(&scene, role_command(format!("signals:{life}")));
    let status = host.wait_exit();
    assert!(status.success(), "{life}: {status}\n{}", host.log_text());
    scene.assert_nothing_left();
}

#[test]
fn handlers_installed_after_a_cluster_are_in_place() {
    lives_well("hooks-after");
}

#[test]
fn handlers_installed_while_a_cluster_runs_stay() {
    lives_well("hooks-meanwhile");
}

#[test]
fn handlers_from_before_are_called_once_a_signal() {
    lives_well("second-cluster-below");
}

#[test]
fn a_start_that_failed_for_want_of_descriptors_leaves_no_signal_at_its_default() {
    lives_well("few-descriptors");
}

#[test]
fn who_sent_a_signal_is_in_the_log() {
    let scene = Scene::new("sent-by");
    let master = Master::run(&scene, &role_settings("service"));
    master.wait_ready(4);
    master.signal(libc::SIGUSR1);
    let uid = proc::status_field("self", "Uid").expect("a uid");
    let uid = uid.split_whitespace().next().expect("the real one").to_owned();
    master.wait_log(&format!("SIGUSR1 received from pid {} (uid {uid})", std::process::id()));
    master.stop(&scene);
}

#[test]
fn a_thread_that_blocks_all_signals_leaves_incoming_also_where_the_program_handles_sigurg() {
    let scene = Scene::new("urgent");
    let mut settings = role_settings("urgent");
    settings["worker"] = json!(1);
    settings["disconnectTimeout"] = json!(60_000);
    let mut master = Master::run(&scene, &settings);
    let worker = *master.wait_ready(1).first().expect("one");
    assert!(proc::has_signal(worker, "SigCgt", libc::SIGURG));
    sys::kill(master.pid(), libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    assert!(!master.has_logged("has not left within"), "{}", master.log_text());
    scene.assert_nothing_left();
}
