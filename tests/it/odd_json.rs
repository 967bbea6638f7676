//! JSON as others write it: half letters, deep nesting, keys in an order that somebody cares for. It is delivered as
//! it is; where it cannot be, whoever waits for it hears at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::Answer;
use crate::harness::master::role_settings;
use crate::harness::tools::with_each_node;
use crate::harness::{Master, Scene};

/// Far less than the 30 s that the master waits for replies here.
const AT_ONCE: Duration = Duration::from_secs(10);

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// A worker that replies to each question with the very line that the question holds under `line`.
fn parrot(scene: &Scene) -> Master {
    let mut settings = role_settings("messages:parrot");
    settings["worker"] = json!(1);
    settings["listen"] = json!([]);
    settings["api"] =
        json!({ "listen": format!("unix:{}", scene.path("api.sock").display()), "workerTimeout": 30_000 });
    let master = Master::run(scene, &settings);
    master.wait_one_ready();
    master
}

#[track_caller]
fn ask(master: &Master, line: &str) -> Answer {
    let began = Instant::now();
    let answer = master.post("/sync_send", &json!({ "cmd": "x", "line": line }).to_string());
    assert!(began.elapsed() < AT_ONCE, "{answer:?} after {:?}", began.elapsed());
    answer
}

#[test]
fn replies_come_as_they_were_written() {
    let scene = Scene::new("odd-replies");
    let master = parrot(&scene);
    let (deep, deepest) = (nested(130), nested(510));
    let table = [
        (r#""cut \ud83d""#, r#""cut \ufffd""#),
        (r#""\ude00 \ud83d\ude00""#, r#""\ufffd \ud83d\ude00""#),
        (
            r#"{"z":1,"a":{"y":2,"b":1e2},"n":12345678901234567890123,"m":-0.10}"#,
            r#"{"z":1,"a":{"y":2,"b":1e2},"n":12345678901234567890123,"m":-0.10}"#,
        ),
        ("[1,\t2\r]", "[1, 2 ]"),
        (&deep, &deep),
        (&deepest, &deepest),
    ];
    for (given, expected) in table {
        let answer = ask(&master, &format!(r#"{{"cmd":"x","msg":{given}}}"#));
        assert_eq!((answer.status, answer.body.as_str()), (200, format!("[{expected}]").as_str()), "{given}");
        let answer = ask(&master, &format!(r#"{{"msg":{given},"cmd":"x"}}"#));
        assert_eq!(answer.body, format!("[{expected}]"), "{given} before its cmd");
    }
    assert_eq!(master.status()["dropped"]["messages"], 0);
    master.stop(&scene);
}

#[test]
fn who_asked_hears_at_once_of_a_reply_that_is_dropped() {
    let scene = Scene::new("odd-dropped");
    let master = parrot(&scene);
    let table = [
        (format!(r#"{{"cmd":"x","msg":{}}}"#, nested(600)), "nested deeper than 512 levels"),
        (format!(r#"{{"msg":{},"cmd":"x"}}"#, nested(600)), "nested deeper than 512 levels"),
        (r#"{"cmd":"x","msg":1e400}"#.into(), "a number out of range"),
        (r#"{"cmd":"x","msg":nonsense}"#.into(), "not JSON: "),
        (r#"{"cmd":"x","msg":"LONG"}"#.into(), "a line of more than 4 MiB"),
    ];
    for (count, (line, why)) in table.iter().enumerate() {
        let answer = ask(&master, line);
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(answer.body.contains("its reply was dropped: ") && answer.body.contains(why), "{answer:?}");
        assert_eq!(master.status()["dropped"]["messages"], count + 1);
    }
    master.stop(&scene);
}

/// As `curl` sends them: the worker gets them as they are, on one line.
#[test]
fn messages_of_the_api_go_out_as_they_came() {
    let scene = Scene::new("odd-bodies");
    let master = parrot(&scene);
    let table = [
        (
            "{\"cmd\":\"x\",\n \"z\":1,\r\n\t\"a\":[1.50,2e3],\"echo\":true}",
            "{\"cmd\":\"x\",  \"z\":1,\r \t\"a\":[1.50,2e3],\"echo\":true",
        ),
        (r#"{"z":"half \ud83d","cmd":"x","echo":true}"#, r#"{"z":"half \ufffd","cmd":"x","echo":true"#),
    ];
    for (body, expected) in table {
        let answer = master.post("/sync_send", body);
        let heard: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        let heard = heard[0].as_str().expect("what it heard");
        assert!(heard.starts_with(expected), "{heard}");
    }
    let deep = format!(r#"{{"cmd":"x","deep":{},"echo":true}}"#, nested(500));
    let answer = master.post("/sync_send", &deep);
    assert!(answer.status == 200 && answer.body.contains(&nested(500)), "{answer:?}");
    for (body, status) in [
        (format!(r#"{{"cmd":"x","deep":{}}}"#, nested(600)), 400),
        (r#"{"cmd":"\u0050ROTEUS_DISCONNECT"}"#.into(), 400),
        (r#"{"cmd":"x","n":1e400}"#.into(), 400),
    ] {
        for path in ["/send", "/sync_send"] {
            assert_eq!(master.post(path, &body).status, status, "{path} {body}");
        }
    }
    master.stop(&scene);
}

#[test]
fn messages_of_node_workers_are_theirs() {
    with_each_node("messages_of_node_workers_are_theirs", |path| {
        let scene = Scene::new("odd-node");
        let program = "process.on('message', function (m) {
            var deep = []; for (var i = 1; i < 130; i++) deep = [deep];
            process.send({ cmd: m.cmd, msg: { z: 'cut \\ud83d', a: deep, m: JSON.stringify(m) } });
        }); process.send('ready'); setInterval(function () {}, 1e6);";
        scene.write("worker.js", program);
        let settings = json!({ "worker": 1, "exec": "worker.js" });
        let mut command = Master::command(&scene, &settings);
        command.env("PATH", path);
        let master = Master::start(&scene, command);
        master.wait_one_ready();
        let answer = master.post("/sync_send", r#"{"cmd":"x","b":1,"a":"\ud83d"}"#);
        let seen = r#"{\"cmd\":\"x\",\"b\":1,\"a\":\"�\""#;
        // Before Node 12 half a letter leaves as the bytes of U+FFFD, since then as an escape.
        let body = answer.body.replace(r"\ufffd", "\u{fffd}");
        assert!(
            body.starts_with(&format!("[{{\"z\":\"cut \u{fffd}\",\"a\":{},\"m\":\"{seen}", nested(130))),
            "{answer:?}"
        );
        master.stop(&scene);
    });
}
