//! Messages between a master and its workers.

use serde_json::{Value, json};

use crate::harness::http::{self, Answer};
use crate::harness::master::{role_command, role_settings, rows};
use crate::harness::{Master, Scene, wait_until};

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
fn sixty_kilobytes_before_an_abort_are_heard() {
    play_well("aborts");
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

#[test]
fn a_request_gets_one_result_from_each_worker() {
    play_well("requests");
}

fn answer(status: u16, body: impl Into<String>) -> Answer {
    Answer { status, body: body.into() }
}

/// Three workers in no way ours, each of which sends back the name of what it is sent.
fn plain_workers(scene: &Scene) -> Master {
    let mut settings = role_settings("messages:plain");
    settings["worker"] = json!(3);
    settings["listen"] = json!([]);
    settings["minUptime"] = json!(10);
    settings["backoff"] = json!({ "initial": 1, "max": 10 });
    settings["disconnectTimeout"] = json!(5000);
    settings["api"] =
        json!({ "listen": format!("unix:{}", scene.path("api.sock").display()), "workerTimeout": 20_000 });
    let master = Master::run(scene, &settings);
    master.wait_ready(3);
    master
}

/// The ids of all workers, once three are ready.
fn ids(master: &Master) -> Vec<u64> {
    master.wait_ready(3);
    rows(&master.status()).iter().filter_map(|row| row["id"].as_u64()).collect()
}

fn from(ids: &[u64]) -> Answer {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    answer(200, ids.iter().map(|id| format!("from {id}")).collect::<Value>().to_string())
}

#[test]
fn send_and_sync_send_answer_word_for_word() {
    let scene = Scene::new("sync-send");
    let master = plain_workers(&scene);
    let ask = |message: Value| master.post("/sync_send", &message.to_string());
    assert_eq!(ask(json!({ "cmd": "ask" })), from(&[1, 2, 3]));
    assert_eq!(ask(json!({ "msg": "no name" })), answer(200, r#"["OK","OK","OK"]"#));
    assert_eq!(ask(json!([1, "two"])), answer(200, r#"["OK","OK","OK"]"#));
    assert_eq!(ask(json!({ "cmd": "ask", "die": [2] })), from(&[1, 3]));
    let all = ids(&master);
    assert_eq!(ask(json!({ "cmd": "ask", "silent": [1], "timeout": 50 })), answer(500, "worker timeout."));
    assert_eq!(ask(json!({ "cmd": "ask" })), from(&all));
    assert_eq!(ask(json!({ "cmd": "ask", "die": all })), answer(200, "[]"));
    ids(&master);
    for path in ["/send", "/sync_send"] {
        for body in ["", "{", "\u{feff}{}", "{\"cmd\":\"ask\"} x"] {
            assert_eq!(
                master.post(path, body),
                answer(400, "request body parse failure."),
                "{path} {body:?}"
            );
        }
        let refused = master.post(path, r#"{"cmd":"PROTEUS_DISCONNECT"}"#);
        assert_eq!(refused, answer(400, "`cmd` \"PROTEUS_DISCONNECT\" is reserved"));
        assert_eq!(master.ask(path).status, 405);
    }
    let before = ids(&master);
    assert_eq!(
        master.post("/send", &json!({ "cmd": "ask", "die": [before[0]] }).to_string()),
        answer(200, "OK")
    );
    wait_until("it died of the message", || !ids(&master).contains(&before[0]));
    master.stop(&scene);
}

#[test]
fn a_second_request_of_the_same_name_is_too_much_for_plain_workers() {
    let scene = Scene::new("too-busy");
    let master = plain_workers(&scene);
    let (file, api) = (scene.path("go"), master.api().to_owned());
    let first = std::thread::spawn({
        let message = json!({ "cmd": "ask", "wait": file }).to_string();
        move || http::post_over_unix(&api, "/sync_send", &message).expect("answered")
    });
    wait_until("the first is on its way", || {
        rows(&master.status()).iter().all(|row| row["messagesOut"].as_u64() > Some(0))
    });
    let second = master.post("/sync_send", r#"{"cmd":"ask"}"#);
    assert_eq!(second, answer(500, "server too busy."));
    scene.write("go", "");
    assert_eq!(first.join().expect("no panic"), from(&[1, 2, 3]));
    assert_eq!(master.post("/sync_send", r#"{"cmd":"ask"}"#), from(&[1, 2, 3]));
    master.stop(&scene);
}

#[test]
fn callers_of_workers_that_never_answer_pin_nothing() {
    let scene = Scene::new("never-answers");
    let master = plain_workers(&scene);
    let callers: Vec<_> = (0..10)
        .map(|number| {
            let (api, message) = (
                master.api().to_owned(),
                json!({ "cmd": format!("ask{number}"), "silent": [1, 2, 3], "timeout": 3000 }),
            );
            std::thread::spawn(move || http::post_over_unix(&api, "/sync_send", &message.to_string()))
        })
        .collect();
    wait_until("they wait", || {
        rows(&master.status()).iter().all(|row| row["messagesOut"].as_u64() >= Some(8))
    });
    let answers: Vec<_> =
        callers.into_iter().map(|caller| caller.join().expect("no panic").expect("answered")).collect();
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(500), count(503)), (8, 2), "{answers:?}");
    assert_eq!(master.post("/sync_send", r#"{"cmd":"ask"}"#), from(&[1, 2, 3]));
    master.stop(&scene);
}
