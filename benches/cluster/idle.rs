//! What a master costs that has nothing to do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use crate::process;
use crate::stage::Stage;

/// Threads that `tiny_http` keeps for the next request leave after 5 s without one.
const SPARE_THREADS: Duration = Duration::from_secs(7);
const LOOK: Duration = Duration::from_secs(10);

pub(crate) fn master() {
    let stage = Stage::new("idle");
    let api = stage.path("api.sock");
    let settings = json!({
        "listen": { "name": "http", "address": "127.0.0.1:0" },
        "api": { "listen": format!("unix:{}", api.display()) },
    });
    let master = stage.cluster("service", 4, &settings);
    for _ in 0..4 {
        stage.report();
    }
    ask(&api);
    std::thread::sleep(SPARE_THREADS);
    let (pid, before) = (master.0.id(), process::switches(master.0.id()));
    std::thread::sleep(LOOK);
    let wakeups = process::switches(pid) - before;
    let memory = process::private_memory(pid) >> 10;
    let threads = process::thread_count(pid);
    println!("{:<58} {wakeups:>12} {:>12} {:>7}  0", "wake-ups of the idle master in 10 s", "", "");
    println!("{:<58} {memory:>8} KiB {:>12} {:>7}  < 4096 KiB", "private memory of the idle master", "", "");
    println!("{:<58} {threads:>12}", "threads of the idle master");
}

/// A look at the status, so that the API is at work like in life.
fn ask(api: &std::path::Path) {
    let mut stream = UnixStream::connect(api).expect("the API listens");
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
