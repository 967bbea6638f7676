//! Workers with good and bad manners.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use proteus_cluster::Worker;

use super::{notify, serve};
use crate::forged::EVIL;
use crate::harness::master::role_command;
use crate::harness::sys;

/// Ignores every signal that can be ignored, and so does its child. Reads no channel.
pub(super) fn stubborn() -> i32 {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        sys::ignore(signal);
    }
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
    notify("READY=1");
    child.wait().expect("our child"); // it outlasts every test, unless it is killed
    0
}

/// Serves, and says between two looks at its listener that it does, until a file says that it hangs: one named
/// by its pid, or, for a worker of a later generation, `hang-new`. The heartbeat goes by `how`.
pub(super) fn beats(how: &str) -> i32 {
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    let listener = worker.listener("http").expect("the listener");
    listener.set_nonblocking(true).expect("set");
    let own = format!("hang-{}", std::process::id());
    worker.ready().expect("told the master");
    while !worker.disconnect_requested() {
        let hangs = Path::new(&own).exists() || worker.generation() > 1 && Path::new("hang-new").exists();
        if hangs {
            loop {
                thread::park();
            }
        }
        match how {
            "notify" => notify("WATCHDOG=1"),
            "line" => channel_line("{\"cmd\":\"PROTEUS_ALIVE\"}\n"),
            _ => worker.alive(),
        }
        sys::wait_readable_for(&[listener.as_fd(), worker.disconnect_fd()], 50);
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).expect("set");
            drop(serve(&stream));
        }
    }
    0
}

/// Ready; takes 100 MiB, or asks to be replaced, once a file says so that is named by its pid.
pub(super) fn grows() -> i32 {
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    worker.ready().expect("told the master");
    let (grow, ask) = (format!("grow-{}", std::process::id()), format!("ask-{}", std::process::id()));
    let (mut held, mut asked) = (Vec::new(), 0);
    while !worker.disconnect_requested() {
        if held.is_empty() && Path::new(&grow).exists() {
            held = vec![1u8; 100 << 20];
        }
        if asked == 0 && Path::new(&ask).exists() {
            worker.request_restart().expect("told the master");
            asked += 1;
        }
        sys::wait_readable_for(&[worker.disconnect_fd()], 20);
    }
    i32::from(held.contains(&0))
}

/// A line on the channel, as a worker in any language writes it.
fn channel_line(line: &str) {
    let number = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel");
    let mut channel: File = sys::copy_of(number.parse().expect("a number")).into();
    channel.write_all(line.as_bytes()).expect("written");
}

/// Says ready for whoever `NOTIFY_SOCKET` belongs to, and ends.
pub(super) fn says_ready() -> i32 {
    notify("READY=1");
    0
}

/// Lets a child say ready, as a shell script with `systemd-notify` does; `reaped` or `zombie` by then.
pub(super) fn member_says_ready(end: &str) -> i32 {
    let mut child = role_command("says-ready").spawn().expect("a child");
    match end {
        "reaped" => assert!(child.wait().expect("our child").success()),
        "zombie" => {}
        _ => panic!("how is {end}?"),
    }
    loop {
        thread::park();
    }
}

/// Says by `sd_notify` what the test writes into files `say-SLOT-1`, `say-SLOT-2`…, in turn: `exit N` ends it,
/// `at NAME MESSAGE` speaks at another socket. Ignores SIGTERM.
pub(super) fn speaker(speakers: &str) -> i32 {
    sys::ignore(libc::SIGTERM);
    let slot = std::env::var("PROTEUS_SLOT").expect("a slot");
    let id = std::env::var("PROTEUS_WORKER_ID").expect("an id");
    // Only the first worker of a slot has something to say; its successors are ready and quiet.
    if id.parse::<usize>().expect("a number") > speakers.parse().expect("a number") {
        notify("READY=1");
        loop {
            thread::park();
        }
    }
    for turn in 1.. {
        let file = format!("say-{slot}-{turn}");
        let text = crate::harness::eventually("its turn", || std::fs::read_to_string(&file).ok());
        match text.split_once(' ') {
            Some(("exit", status)) => return status.parse().expect("a status"),
            Some(("at", rest)) => {
                let (name, message) = rest.split_once(' ').expect("a name and a message");
                super::notify_at(name, message);
            }
            _ => notify(&text),
        }
    }
    0
}

/// Says what it can, in words that would forge lines of the log, and ends.
pub(super) fn forges() -> i32 {
    let number = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel").parse().expect("a number");
    let mut channel = std::os::unix::net::UnixStream::from(sys::inherited(number));
    notify("READY=1");
    let address = format!("unix:/no such folder/{EVIL}");
    for line in [
        serde_json::json!({ "cmd": "PROTEUS_LISTEN", "address": address }),
        serde_json::json!({ "cmd": "PROTEUS_PANICKED", "text": EVIL }),
        serde_json::json!({ "cmd": EVIL, "unheard": true }),
        serde_json::json!({ "cmd": "PROTEUS_LOG", "message": EVIL, "target": EVIL, "kv": { "k": EVIL } }),
        serde_json::json!({ "cmd": "PROTEUS_LOG", "message": "m", "level": EVIL }),
        serde_json::json!({ "cmd": "PROTEUS_FAILED", "reason": EVIL }),
    ] {
        channel.write_all(format!("{line}\n").as_bytes()).expect("the master reads");
    }
    notify(&format!("STATUS={EVIL}"));
    eprintln!("{EVIL}");
    // A path is bound beside the loop, for as long as somebody waits for it.
    let answer = std::io::BufReader::new(channel).lines().next().expect("an answer").expect("text");
    assert!(answer.contains("PROTEUS_LISTENING"), "{answer}");
    1
}
