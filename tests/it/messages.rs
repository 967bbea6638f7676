//! Messages between a master and its workers.

use crate::harness::master::role_command;
use crate::harness::{Master, Scene};

/// Plays the role to its end, which must be a good one.
#[track_caller]
fn play_well(role: &str) {
    let scene = Scene::new(&role.replace(':', "-"));
    let mut host = Master::start(&scene, role_command(format!("messages:{role}")));
    let status = host.wait_exit();
    assert!(status.success(), "{role}: {status}\n{}", host.log_text());
    scene.assert_nothing_left();
}

#[test]
fn the_page_both_ways() {
    let scene = Scene::new("messages-page");
    let master = Master::start(&scene, role_command("messages:example"));
    for worker in 1..=2 {
        master.wait_log(&format!("worker {worker} says: \"sending message to master\""));
    }
    master.wait_log("the master says: \"sending message to worker\"");
    master.stop(&scene);
}

#[test]
fn last_words_arrive_however_a_worker_ends() {
    for way in ["return", "exit", "panic"] {
        play_well(&format!("burst:{way}"));
    }
}

#[test]
fn panics_of_handlers_and_listeners_are_counted_and_go_no_further() {
    play_well("panicking");
}

#[test]
fn what_comes_before_anybody_listens_is_kept() {
    play_well("held");
}

#[test]
fn a_busy_handler_delays_nothing_and_is_waited_for() {
    play_well("busy-handler");
}
