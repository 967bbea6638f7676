//! Callers who wait for the end of what they order: the verdict, who may wait, and what happens beside it.

use std::io;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::harness::http::{Answer, over_unix};
use crate::harness::master::shell_settings;
use crate::harness::{Master, Scene, eventually, pause, wait_until};

/// Fails while `bad` exists, is not ready before `go` exists, and does not go while `stay` exists.
const WORKER: &str = r#"[ -e bad ] && exit 7
until [ -e go ]; do sleep 0.02; done
trap 'while [ -e stay ]; do sleep 0.02; done; exit' TERM
echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD
while :; do sleep 0.02; done"#;

fn settings() -> Value {
    let mut settings = shell_settings(WORKER);
    settings["ready"] = json!("notify");
    settings["canary"] = json!(0);
    settings["backoff"] = json!({ "initial": 10, "max": 20 });
    settings
}

fn begin(scene: &Scene) -> Master {
    scene.write("go", "");
    let master = Master::run(scene, &settings());
    master.wait_one_ready();
    master
}

fn remove(scene: &Scene, name: &str) {
    std::fs::remove_file(scene.path(name)).expect("it is there");
}

/// Asks on a thread of its own.
fn ask_beside(master: &Master, path: &str) -> JoinHandle<io::Result<Answer>> {
    let (socket, path) = (master.api().to_owned(), path.to_owned());
    std::thread::spawn(move || over_unix(&socket, "GET", &path, ""))
}

/// The same, again and again until there is room for one who waits.
fn ask_until_there_is_room(master: &Master, path: &str) -> JoinHandle<io::Result<Answer>> {
    let (socket, path) = (master.api().to_owned(), path.to_owned());
    std::thread::spawn(move || {
        loop {
            match over_unix(&socket, "GET", &path, "") {
                Ok(Answer { status: 503, .. }) => pause(),
                answer => return answer,
            }
        }
    })
}

#[track_caller]
fn answered(caller: JoinHandle<io::Result<Answer>>) -> (u16, Value) {
    verdict(&caller.join().expect("a caller").expect("an answer"))
}

#[track_caller]
fn verdict(answer: &Answer) -> (u16, Value) {
    let body = serde_json::from_str(&answer.body);
    (answer.status, body.unwrap_or_else(|_| panic!("no verdict: {answer:?}")))
}

fn completed() -> (u16, Value) {
    (200, json!({ "outcome": "completed", "reason": null, "workers": [] }))
}

#[test]
fn a_restart_that_completes() {
    let scene = Scene::new("wait-completed");
    let master = begin(&scene);
    for (id, wait) in [(1, "30s"), (2, "30000"), (3, "1m"), (4, "30000ms"), (5, "1h")] {
        assert_eq!(verdict(&master.ask(&format!("/restart?wait={wait}"))), completed(), "{wait}");
        let status = master.status();
        assert_eq!(
            (&status["restart"]["id"], &status["restart"]["state"]),
            (&json!(id), &json!("completed"))
        );
    }
    master.stop(&scene);
}

#[test]
fn a_restart_that_is_aborted_names_the_worker() {
    let scene = Scene::new("wait-aborted");
    let master = begin(&scene);
    scene.write("bad", "");
    let (status, verdict) = verdict(&master.ask("/restart?wait=30s"));
    assert_eq!((status, &verdict["outcome"]), (500, &json!("aborted")));
    assert!(verdict["reason"].as_str().is_some_and(|reason| reason.contains("exit status 7")), "{verdict}");
    assert_eq!(verdict["workers"].as_array().map(Vec::len), Some(1), "{verdict}");
    let failed = &verdict["workers"][0];
    assert_eq!((&failed["worker"], &failed["cause"]), (&json!(2), &json!("boot-failed")));
    assert_eq!((&failed["code"], &failed["signal"]), (&json!(7), &Value::Null));
    assert!(failed["stderr"].is_array(), "{verdict}");
    remove(&scene, "bad");
    master.stop(&scene);
}

#[test]
fn a_wait_that_runs_out_is_no_verdict() {
    let scene = Scene::new("wait-running");
    let master = begin(&scene);
    remove(&scene, "go");
    let running = (202, json!({ "outcome": "running", "reason": null, "workers": [] }));
    assert_eq!(verdict(&master.ask("/restart?wait=0")), running);
    assert_eq!(verdict(&master.ask("/restart?wait=50ms")), running);
    scene.write("go", "");
    master.wait_status("both are over", |status| {
        status["restart"]["id"] == 2 && status["restart"]["state"] == "completed"
    });
    master.stop(&scene);
}

#[test]
fn a_wait_that_is_no_time_is_refused_and_nothing_done() {
    let scene = Scene::new("wait-400");
    let master = begin(&scene);
    for wait in ["", "soon", "30x", "-1", "1.5s", "99999999999h"] {
        for order in ["/restart", "/shutdown", "/force_shutdown"] {
            let refused = master.ask(&format!("{order}?wait={wait}"));
            assert_eq!(refused.status, 400, "{order} {wait}: {}", refused.body);
            assert!(refused.body.starts_with("wait: "), "{}", refused.body);
        }
    }
    assert_eq!(master.status()["restart"], Value::Null);
    master.stop(&scene);
}

#[test]
fn a_shutdown_overtakes_a_restart_and_answers_when_all_is_over() {
    let scene = Scene::new("wait-shutdown");
    scene.write("go", "");
    let mut settings = settings();
    let pid_file = scene.path("pid");
    settings["pid"] = json!(pid_file);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    remove(&scene, "go");
    scene.write("stay", "");
    let restart = ask_beside(&master, "/restart?wait=30s");
    let remembered = ask_beside(&master, "/restart?wait=30s");
    master.wait_status("the restart runs", |status| status["restart"]["state"] == "running");
    master.wait_log("restart 2 is remembered");
    let shutdown = ask_beside(&master, "/shutdown?wait=30s");
    let aborted = (500, json!({ "outcome": "aborted", "reason": "shutdown", "workers": [] }));
    assert_eq!(answered(restart), aborted);
    assert_eq!(answered(remembered), aborted);
    let refused = (409, json!({ "outcome": "refused", "reason": "a shutdown has begun", "workers": [] }));
    assert_eq!(verdict(&master.ask("/restart?wait=30s")), refused);
    assert_eq!(verdict(&master.ask("/shutdown?wait=30s")), refused);
    assert_eq!(master.ask("/restart").status, 409);
    assert!(!shutdown.is_finished(), "a worker is still there");
    remove(&scene, "stay");
    assert_eq!(answered(shutdown), completed());
    assert!(!pid_file.exists(), "the answer comes when everything is given back");
    master.ends_with(&scene, 0);
}

#[test]
fn a_shutdown_that_is_forced_is_not_completed() {
    let scene = Scene::new("wait-forced");
    let master = begin(&scene);
    scene.write("stay", "");
    let shutdown = ask_beside(&master, "/shutdown?wait=30s");
    master.wait_status("it has begun", |status| status["master"]["state"] == "shutting-down");
    assert_eq!(verdict(&master.ask("/force_shutdown?wait=30s")), completed());
    let (status, verdict) = answered(shutdown);
    assert_eq!((status, &verdict["outcome"]), (500, &json!("forced")));
    master.ends_with(&scene, 1);
}

#[test]
fn eight_may_wait_and_everybody_else_is_answered_at_once() {
    let scene = Scene::new("wait-ninth");
    let master = begin(&scene);
    remove(&scene, "go");
    let first = ask_beside(&master, "/restart?wait=30s");
    master.wait_status("the restart runs", |status| status["restart"]["state"] == "running");
    let mut callers: Vec<_> =
        (2..=8).map(|_| ask_until_there_is_room(&master, "/restart?wait=30s")).collect();
    callers.push(first);
    // With no time to wait, so that none of these keeps the place of one of the eight.
    let ninth = eventually("eight wait", || Some(master.ask("/restart?wait=0")).filter(|a| a.status != 202));
    assert_eq!(ninth.status, 503, "{}", ninth.body);
    assert_eq!(master.post("/sync_send", r#"{"cmd":"x"}"#).status, 503, "and the message is not sent");
    for _ in 0..20 {
        assert_eq!(master.status()["master"]["state"], "restarting");
        assert_eq!(master.ask("/health").body, "OK");
    }
    assert!(callers.iter().all(|caller| !caller.is_finished()), "nobody was let go");
    scene.write("go", "");
    for caller in callers {
        assert_eq!(answered(caller), completed());
    }
    wait_until("there is room again", || master.ask("/restart?wait=30s").status == 200);
    master.stop(&scene);
}
