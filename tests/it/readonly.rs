//! Containers in which nothing can be written.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::http::over_tcp;
use crate::harness::master::idle_settings;
use crate::harness::{Master, Scene, get, skipped, wait_until};

/// Every place for files of the moment, and the root, read-only: in a mount namespace of its own.
const SEALED: &str = r#"for place in / /dev/shm /run /var/tmp /tmp; do
    mount --bind "$place" "$place" && mount -o remount,bind,ro "$place" || exit 77
done
cd / && exec "$@""#;

#[test]
fn the_api_needs_no_file() {
    let scene = Scene::new("readonly");
    let address = scene.address(8111);
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": address });
    let inner = Master::command(&scene, &settings);
    let sealed = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", SEALED, "sh"]).args(program);
        command.env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR").stdin(Stdio::null());
        command
    };
    if !sealed(&["true"]).output().is_ok_and(|tried| tried.status.success()) {
        return skipped(&scene.tag, "no mount namespaces here");
    }
    let mut command = sealed(&[]);
    command.arg(inner.get_program()).args(inner.get_args());
    let master = Master::start(&scene, command);
    master.wait_log("ready; API on");
    assert_eq!(get(&address, "/health").body, "OK");
    let status: serde_json::Value = serde_json::from_str(&get(&address, "/status").body).expect("JSON");
    assert_eq!(status["master"]["state"], "running");
    assert_eq!(get(&address, "/restart?wait=20s").status, 200);
    assert_eq!(get(&address, "/scale?worker=0").status, 400);
    let head = over_tcp(&address, "HEAD", "/status", "").unwrap_err().to_string();
    assert!(head.contains("HTTP/1.1 200 OK") && !head.contains("workers"), "no body: {head}");
    // A path that is nearly as long as one may be, and a body.
    let long = format!("/health?{}", "x".repeat(7900));
    assert_eq!(over_tcp(&address, "GET", &long, "").expect("an answer").status, 200);
    assert_eq!(post(&address, "/sync_send", r#"{"x":1}"#), 200);
    assert_eq!(post(&address, "/send", "no JSON"), 400);
    wait_until("its threads are gone", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", master.pid())).expect("it lives").flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "proteus-api").count() == 0
    });
    assert_eq!(get(&address, "/shutdown?wait=20s").status, 200);
    master.ends_with(&scene, 0);
}

fn post(address: &str, path: &str, body: &str) -> u16 {
    let mut stream = std::net::TcpStream::connect(address).expect("the API");
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
        .expect("room");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
}
