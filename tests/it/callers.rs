//! Who calls the control API: whose orders are taken, and what the log says of it.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::http::{Answer, over_tcp};
use crate::harness::master::idle_settings;
use crate::harness::{Master, Scene, get, proc, proteus, skipped, sys, wait_until};

/// A user of this machine that is neither root nor whoever runs the tests.
const SOMEBODY: u32 = 65534;

fn own_uid(scene: &Scene) -> u32 {
    std::fs::metadata(&scene.folder).expect("our own folder").uid()
}

/// A master whose API is on an address of this test's alone.
fn begin(scene: &Scene, api: &Value) -> (Master, String) {
    let address = scene.address(8111);
    let mut settings = idle_settings();
    settings["api"] = api.clone();
    settings["api"]["listen"] = json!(address);
    let master = Master::run(scene, &settings);
    master.wait_log("ready; API on");
    (master, address)
}

fn status(address: &str) -> Value {
    serde_json::from_str(&get(address, "/status").body).expect("JSON")
}

/// What another user gets; `None` where there can be none.
fn as_somebody(address: &str, path: &str) -> Option<String> {
    let (host, port) = address.split_once(':').expect("a port");
    let talk = format!(
        "exec 3<>/dev/tcp/{host}/{port}; printf 'GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' >&3; cat <&3"
    );
    let mut command = Command::new("bash");
    let output = command.args(["-c", &talk]).uid(SOMEBODY).current_dir("/").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|answer| !answer.is_empty())
}

#[test]
fn an_order_is_logged_with_who_gave_it() {
    let scene = Scene::new("callers-logged");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    let us = format!("by uid {} pid {} (unix socket)", own_uid(&scene), std::process::id());
    for (path, order) in [
        ("/scale?worker=2", "scale to 2 ordered"),
        ("/workers/1/restart", "restart of worker 1 ordered"),
        ("/reopen", "reopen ordered"),
        ("/restart?wait=20s", "restart ordered"),
        ("/shutdown", "shutdown ordered"),
    ] {
        assert_eq!(master.ask(path).status, 200, "{path}");
        master.wait_log(&format!("{order} {us}"));
    }
    master.ends_with(&scene, 0);
}

#[test]
fn over_tcp_the_user_is_known_too() {
    let scene = Scene::new("callers-tcp");
    let (master, address) = begin(&scene, &json!({}));
    assert_eq!(get(&address, "/restart?wait=20s").status, 200);
    master.wait_log(&format!("restart ordered by uid {} at 127.", own_uid(&scene)));
    master.stop(&scene);
}

#[test]
fn another_user_may_look_and_not_order() {
    let scene = Scene::new("callers-other");
    let (master, address) = begin(&scene, &json!({}));
    if as_somebody(&address, "/health").is_none() {
        skipped(&scene.tag, "no other user, or no bash, here");
        return master.stop(&scene);
    }
    let ask = |path: &str| as_somebody(&address, path).expect("an answer");
    for path in ["/status", "/health", "/ready"] {
        assert!(ask(path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    for path in ["/shutdown", "/force_shutdown?wait=1s", "/restart", "/scale?worker=3", "/reopen"] {
        let refused = ask(path);
        assert!(refused.starts_with("HTTP/1.1 403 "), "{path}: {refused}");
        assert!(refused.contains(&format!("uid {SOMEBODY} gives no orders here: root")), "{refused}");
    }
    master.wait_log(&format!("refused GET /shutdown by uid {SOMEBODY} at 127."));
    let now = status(&address);
    assert_eq!((&now["orders"]["refusedCalls"], &now["restart"]), (&json!(5), &Value::Null), "{now}");
    assert_eq!(now["master"]["state"], "running");
    // Whoever runs it, and root, order as ever.
    assert_eq!(get(&address, "/restart?wait=20s").status, 200);
    master.stop(&scene);
}

#[test]
fn without_netlink_the_kernel_s_table_says_who_it_is() {
    let scene = Scene::new("callers-table");
    let address = scene.address(8111);
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": address });
    let mut command = Master::command(&scene, &settings);
    sys::without_family(&mut command, libc::AF_NETLINK);
    let master = Master::start(&scene, command);
    master.wait_log("ready; API on");
    if let Some(refused) = as_somebody(&address, "/shutdown") {
        assert!(refused.contains(&format!("uid {SOMEBODY} gives no orders here: root")), "{refused}");
    }
    assert_eq!(get(&address, "/restart?wait=20s").status, 200);
    master.wait_log(&format!("restart ordered by uid {} at 127.", own_uid(&scene)));
    master.stop(&scene);
}

#[test]
fn a_setting_lets_every_user_order() {
    let scene = Scene::new("callers-any");
    let (master, address) = begin(&scene, &json!({ "anyUser": true }));
    match as_somebody(&address, "/restart?wait=20s") {
        None => skipped(&scene.tag, "no other user, or no bash, here"),
        Some(answer) => {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            master.wait_log(&format!("restart ordered by uid {SOMEBODY} at 127."));
        }
    }
    master.stop(&scene);
}

#[test]
fn who_has_closed_the_connection_is_nobody() {
    let scene = Scene::new("callers-gone");
    let (master, address) = begin(&scene, &json!({}));
    // Accepted only when it is closed: the kernel then shows its user as root, and no process has it open.
    master.signal(libc::SIGSTOP);
    wait_until("every thread of it stands still", || proc::stand_still(master.pid()));
    let mut stream = TcpStream::connect(&address).expect("the API's queue");
    write!(stream, "GET /restart HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
    drop(stream);
    master.signal(libc::SIGCONT);
    master.wait_log("refused GET /restart by nobody any more at 127.");
    assert_eq!(status(&address)["restart"], Value::Null);
    master.stop(&scene);
}

#[test]
fn refused_calls_are_counted_and_logged_once_a_second() {
    let scene = Scene::new("callers-refused");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    let browser = "Origin: http://evil.example\r\n";
    for _ in 0..30 {
        let refused = crate::harness::http::over_unix(master.api(), "GET", "/shutdown", browser);
        assert_eq!(refused.expect("an answer").status, 403);
    }
    assert_eq!(master.ask("/workers/9/restart").status, 404);
    let all = |lines: &[String]| -> usize {
        let refused = lines.iter().filter(|line| line.contains("control API: refused "));
        let more = |line: &String| line.rsplit_once("(and ")?.1.split(' ').next()?.parse::<usize>().ok();
        refused.map(|line| 1 + more(line).unwrap_or_default()).sum()
    };
    wait_until("each is in the log", || all(&master.log_lines()) == 31);
    let lines = master.log_text().matches("control API: refused ").count();
    assert!((2..=10).contains(&lines), "{}", master.log_text());
    assert_eq!(master.status()["orders"]["refusedCalls"], 31);
    master.stop(&scene);
}

#[test]
fn a_wrong_token_is_said_to_be_wrong() {
    let scene = Scene::new("callers-token");
    scene.write("token", "s3cret\n");
    let (master, address) = begin(&scene, &json!({ "tokenFile": scene.path("token") }));
    let ask = |headers: &str| over_tcp(&address, "GET", "/restart", headers).expect("an answer");
    let unauthorized = |why: &str| Answer { status: 401, body: format!("UNAUTHORIZED: {why}") };
    assert_eq!(ask(""), unauthorized("no token: send `Authorization: Bearer TOKEN`"));
    assert_eq!(ask("Authorization: Bearer wrong\r\n"), unauthorized("the token is wrong"));
    assert_eq!(ask("Authorization: Bearer s3cret\r\n").status, 200);
    master.wait_log("can be read by every user of this machine (mode 0644)");
    // The command line reads the settings' file, and is told what is wrong.
    let run = |token: Option<&str>| {
        let mut command = Command::new(proteus());
        command.args(["status", "-c", "proteus.json", "--json"]).current_dir(&scene.folder);
        command.env_remove("PROTEUS_TOKEN").envs(token.map(|token| ("PROTEUS_TOKEN", token)));
        let output = command.output().expect("proteus runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(None), (Some(0), String::new()));
    let (code, said) = run(Some("wrong"));
    assert!(code == Some(2) && said.contains("the token is wrong"), "{said}");
    assert!(!master.has_logged("s3cret"), "the token stays out of the log");
    master.stop(&scene);
}

#[test]
fn a_token_file_that_cannot_be_read_is_a_start_error() {
    let scene = Scene::new("callers-no-token");
    let pipe = scene.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    scene.write("empty", "\n");
    for (file, why) in
        [("pipe", "not a regular file"), ("empty", "the token must not be empty"), ("none", "no such file")]
    {
        let mut settings = idle_settings();
        settings["api"] = json!({ "listen": scene.address(8111), "tokenFile": scene.path(file) });
        let mut master = Master::run(&scene, &settings);
        assert_eq!(master.wait_exit().code(), Some(2), "{file}");
        master.wait_log(&format!("token file {}: {why}", scene.path(file).display()));
    }
    scene.assert_nothing_left();
}

#[test]
fn a_check_warns_of_an_api_that_everybody_reaches() {
    let scene = Scene::new("callers-check");
    let check = |api: Value| {
        scene.write("check.json", json!({ "worker": 1, "exec": "sleep", "api": api }).to_string());
        let mut command = Command::new(proteus());
        let output = command.args(["check", "-c", "check.json"]).current_dir(&scene.folder).output();
        let output = output.expect("proteus runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let warning = "proteus: check.json: warning: the control API at 0.0.0.0:8111 has no token: whoever reaches that address can restart and stop this service\n";
    assert_eq!(check(json!({ "listen": "0.0.0.0" })), warning);
    assert_eq!(check(json!({ "listen": "0.0.0.0", "token": "t" })), "");
    assert_eq!(check(json!({ "listen": "[::ffff:127.0.0.1]:8111" })), "");
    assert_eq!(check(json!({})), "");
}

#[test]
fn probes_have_an_address_of_their_own() {
    let scene = Scene::new("callers-probes");
    let probes = scene.address(8112);
    let (master, address) = begin(&scene, &json!({ "token": "s3cret", "probes": probes }));
    let ask = |path: &str| over_tcp(&probes, "GET", path, "X-Forwarded-Host: x\r\n").expect("an answer");
    assert_eq!((ask("/health").status, ask("/ready").status), (200, 200));
    for path in ["/", "/status", "/restart", "/shutdown", "/send"] {
        assert_eq!(ask(path).status, 404, "{path}");
    }
    assert_eq!(get(&address, "/health").status, 401);
    // Those who crowd one door do not stand in the other.
    let crowd: Vec<_> = (0..64).map(|_| TcpStream::connect(&probes).expect("a place in the queue")).collect();
    let token = "Authorization: Bearer s3cret\r\n";
    for _ in 0..5 {
        assert_eq!(over_tcp(&address, "GET", "/health", token).expect("an answer").status, 200);
    }
    assert_eq!(ask("/ready").status, 200, "and newcomers are served there all the same");
    drop(crowd);
    sys::kill(master.pid(), libc::SIGTERM);
    master.ends_with(&scene, 0);
    assert!(TcpStream::connect(&probes).is_err());
}
