//! The control API: its answers word for word, and the names of the status.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::http::{Answer, over_unix};
use crate::harness::master::{idle_settings, role_settings, rows, shell_settings};
use crate::harness::{Master, Scene, sys};

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: body.into() }
}

fn ask(master: &Master, method: &str, path: &str, headers: &str) -> Answer {
    over_unix(master.api(), method, path, headers).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

#[test]
fn orders_answer_ok_to_get_and_post() {
    let scene = Scene::new("api-ok");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    for (method, id) in [("GET", 1), ("POST", 2)] {
        assert_eq!(ask(&master, method, "/restart", ""), answer(200, "OK"));
        master.wait_status("restarted", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
    }
    assert_eq!(ask(&master, "POST", "/shutdown", ""), answer(200, "OK"));
    master.ends_with(&scene, 0);
    assert!(!scene.path("api.sock").exists());
}

#[test]
fn what_is_not_there_is_not_found() {
    let scene = Scene::new("api-404");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    for path in
        ["/nonsense", "/restart/", "/Restart", "/restart/now", "//restart", "/%72estart", "/shutdownx"]
    {
        assert_eq!(ask(&master, "GET", path, ""), answer(404, "NOT FOUND"), "{path}");
    }
    assert_eq!(master.status()["restart"], Value::Null, "none of them was an order");
    master.stop(&scene);
}

#[test]
fn an_order_with_an_unknown_parameter_is_not_carried_out() {
    let scene = Scene::new("api-400");
    let master = Master::run(&scene, &idle_settings());
    let pid = master.wait_one_ready();
    for path in ["/restart?wiat=30s", "/shutdown?x", "/force_shutdown?=&a=b"] {
        let refused = ask(&master, "GET", path, "");
        assert_eq!(refused.status, 400, "{path}: {}", refused.body);
        assert!(refused.body.contains("takes no parameter"), "{path}: {}", refused.body);
    }
    assert_eq!(ask(&master, "GET", "/health?probe=1", ""), answer(200, "OK"));
    assert_eq!(master.wait_one_ready(), pid);
    assert_eq!(master.status()["restart"], Value::Null);
    master.stop(&scene);
}

#[test]
fn a_web_page_cannot_give_orders() {
    let scene = Scene::new("api-403");
    let master = Master::run(&scene, &idle_settings());
    let pid = master.wait_one_ready();
    let headers = [
        "Origin: http://evil.example\r\n",
        "origin: null\r\n",
        "Referer: http://localhost/\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Mode: no-cors\r\n",
    ];
    for header in headers {
        for order in ["/restart", "/shutdown", "/force_shutdown"] {
            for method in ["GET", "POST"] {
                assert_eq!(ask(&master, method, order, header).status, 403, "{method} {order} {header}");
            }
        }
    }
    assert_eq!(master.wait_one_ready(), pid);
    assert_eq!(master.status()["restart"], Value::Null);
    master.stop(&scene);
}

#[test]
fn a_token_is_asked_for() {
    let scene = Scene::new("api-401");
    let mut settings = idle_settings();
    settings["api"] =
        json!({ "listen": format!("unix:{}", scene.path("api.sock").display()), "token": "s3cret" });
    let master = Master::run(&scene, &settings);
    master.wait_log("ready; API on unix:");
    let wrong = [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer s3cre\r\n",
        "Authorization: Bearer s3cret2\r\n",
        "Authorization: s3cret\r\n",
        "Authorization: Basic s3cret\r\n",
    ];
    for header in wrong {
        for path in ["/restart", "/shutdown", "/force_shutdown", "/status"] {
            assert_eq!(ask(&master, "GET", path, header).status, 401, "{path} {header}");
        }
    }
    let right = "Authorization: Bearer s3cret\r\n";
    let status: Value = serde_json::from_str(&ask(&master, "GET", "/status", right).body).expect("JSON");
    assert_eq!(status["restart"], Value::Null);
    assert!(!master.has_logged("s3cret"), "the token stays out of the log");
    assert_eq!(ask(&master, "GET", "/shutdown", right), answer(200, "OK"));
    master.ends_with(&scene, 0);
}

#[test]
fn ready_is_503_until_min_ready_workers_are() {
    let scene = Scene::new("api-ready");
    let script = r#"until [ -e go$PROTEUS_SLOT ]; do sleep 0.02; done
        echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD; exec sleep 1000"#;
    let mut settings = shell_settings(script);
    settings["worker"] = json!(2);
    settings["minReady"] = json!(2);
    settings["ready"] = json!("notify");
    let master = Master::run(&scene, &settings);
    let states = |status: &Value| rows(status).iter().filter(|row| row["state"] == "ready").count();
    master.wait_status("both start", |status| rows(status).len() == 2);
    assert_eq!(master.ask("/ready").status, 503);
    assert_eq!(master.ask("/health"), answer(200, "OK"));
    scene.write("go1", "");
    master.wait_status("one is ready", |status| states(status) == 1);
    assert_eq!(master.ask("/ready").status, 503);
    scene.write("go0", "");
    let two = master.wait_ready(2);
    assert_eq!(master.ask("/ready"), answer(200, "OK"));
    std::fs::remove_file(scene.path("go0")).expect("there");
    std::fs::remove_file(scene.path("go1")).expect("there");
    sys::kill(*two.first().expect("two"), libc::SIGKILL);
    master.wait_status("one is left", |status| states(status) == 1);
    assert_eq!(master.ask("/ready").status, 503);
    master.stop(&scene);
}

#[test]
fn the_socket_is_the_owner_s_alone() {
    let scene = Scene::new("api-mode");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    let metadata = std::fs::metadata(master.api()).expect("the socket");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    master.stop(&scene);
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Every name is there; more may be added.
#[track_caller]
fn assert_names(value: &Value, names: &[&str]) {
    let found = keys(value);
    let missing: Vec<_> = names.iter().filter(|name| !found.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} not in {value}");
}

#[test]
fn the_names_of_the_status() {
    let scene = Scene::new("status");
    let mut settings = role_settings("service");
    settings["canary"] = json!(0);
    settings["minUptime"] = json!(0);
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(4);
    // Ready at once, they may have no memory of their own yet.
    let begun = |row: &Value| row["rssBytes"].as_u64().is_some_and(|bytes| bytes > 100_000);
    let status = master.wait_status("all have begun", |status| rows(status).iter().all(begun));
    assert_names(&status, &["master", "workers", "listeners", "restart", "forks", "orders", "dropped"]);
    assert_names(&status["master"], &["pid", "version", "state", "generation", "uptimeMs"]);
    assert_eq!(status["master"]["pid"], master.pid());
    assert_eq!(status["master"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["master"]["state"], &status["master"]["generation"]), (&json!("running"), &json!(1)));
    assert_eq!(status["restart"], Value::Null);
    assert_eq!(status["forks"], json!({ "crashes": 0, "planned": 0, "budgetLeft": 100 }));
    assert_eq!(status["dropped"], json!({ "messages": 0, "logLines": 0 }));
    let row_names = [
        "id",
        "slot",
        "pid",
        "generation",
        "state",
        "uptimeMs",
        "rssBytes",
        "cpuPercent",
        "respawns",
        "messagesIn",
        "messagesOut",
        "lastExit",
    ];
    for (at, row) in rows(&status).iter().enumerate() {
        assert_names(row, &row_names);
        assert_eq!((&row["id"], &row["slot"]), (&json!(at + 1), &json!(at)));
        assert_eq!((&row["generation"], &row["state"]), (&json!(1), &json!("ready")));
        assert_eq!((&row["respawns"], &row["lastExit"]), (&json!(0), &Value::Null));
    }
    let second_look = master.status();
    assert!(rows(&second_look).iter().all(|row| row["cpuPercent"].is_number()), "{second_look}");
    let listener = &status["listeners"][0];
    assert_eq!(keys(listener), ["address", "name"]);
    assert_eq!(listener["name"], "http");

    sys::kill(*first.first().expect("four"), libc::SIGKILL);
    let status = master.wait_status("replaced", |status| {
        status["forks"]["crashes"] == 1 && rows(status).iter().all(|row| row["state"] == "ready")
    });
    assert_eq!(status["forks"], json!({ "crashes": 1, "planned": 0, "budgetLeft": 99 }));
    let row = rows(&status).into_iter().find(|row| row["id"] == 5).expect("the fifth worker");
    assert_eq!(row["respawns"], 1);
    assert_names(&row["lastExit"], &["cause", "code", "signal", "stderr"]);
    assert_eq!((&row["lastExit"]["code"], &row["lastExit"]["signal"]), (&Value::Null, &json!(9)));
    assert!(row["lastExit"]["stderr"].is_array());

    master.signal(libc::SIGUSR2);
    let status = master.wait_status("restarted", |status| {
        status["restart"]["state"] == "completed" && rows(status).len() == 4
    });
    assert_names(&status["restart"], &["id", "state", "replaced", "total", "reason"]);
    assert_eq!(status["restart"]["id"], 1);
    assert_eq!((&status["restart"]["replaced"], &status["restart"]["total"]), (&json!(4), &json!(4)));
    assert_eq!(status["restart"]["reason"], Value::Null);
    assert_eq!(status["master"]["generation"], 2);
    assert_eq!(status["forks"], json!({ "crashes": 1, "planned": 4, "budgetLeft": 99 }));
    master.stop(&scene);
}
