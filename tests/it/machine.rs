//! What the machine adds: the first process of a container, the killer of those that take too much memory.

use std::process::Command;

use crate::harness::master::{rows, shell_workers};
use crate::harness::{Master, Scene, eventually, proc, skipped, wait_until};

#[test]
fn the_first_process_of_a_container_reaps_every_orphan() {
    let scene = Scene::new("init");
    let count = 1000;
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do (sleep 0 &); i=$((i+1)); done; : > orphaned; exec sleep 300"
    );
    let inner = Master::command(&scene, &shell_workers(1, &script));
    let namespace = ["-Urpf", "--mount-proc", "--kill-child"];
    if !Command::new("unshare").args(namespace).arg("true").output().is_ok_and(|tried| tried.status.success())
    {
        skipped(&scene.tag, "no namespaces here");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(namespace).arg(inner.get_program()).args(inner.get_args());
    let mut master = Master::start(&scene, command);
    let inside = eventually("the master", || proc::children(master.pid()).first().copied());
    master.wait_ready(1);
    assert_eq!(master.status()["master"]["pid"], 1);
    wait_until("a thousand orphans", || scene.path("orphaned").exists());
    wait_until("only the worker is left", || proc::children(inside).len() == 1);
    wait_until("each was reaped", || master.log_text().matches("reaped orphan").count() >= count);
    assert_eq!(rows(&master.status())[0]["respawns"], 0);
    crate::harness::sys::kill(inside, libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0), "{}", master.log_text());
    scene.assert_nothing_left();
}

#[test]
fn a_master_that_is_spared_does_not_spare_its_workers() {
    let scene = Scene::new("oom");
    let inner = Master::command(&scene, &shell_workers(2, "exec sleep 300"));
    let spared = r#"echo -500 > /proc/self/oom_score_adj && exec "$@""#;
    if !Command::new("sh").args(["-c", spared, "sh", "true"]).output().unwrap().status.success() {
        skipped(&scene.tag, "oom_score_adj cannot be lowered here");
        return;
    }
    let mut command = Command::new("sh");
    command.args(["-c", spared, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let master = Master::start(&scene, command);
    let score = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    for pid in master.wait_ready(2) {
        assert_eq!(score(pid), "0\n");
    }
    assert_eq!(score(master.pid()), "-500\n");
    master.stop(&scene);
}
