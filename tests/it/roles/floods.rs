//! Workers that send more than anybody wants, and masters that must not mind.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proteus_cluster::{Exit, Handle, Message, Worker, WorkerInfo};
use serde_json::json;

use super::messages::{Running, end, host};
use super::notify;
use crate::harness::{PATIENCE, pause, proc, record, sample_or_full, sys, wait_until};

pub(super) fn play(name: &str, argument: &str) -> i32 {
    match name {
        "raw" => raw(),
        "counted" => {
            notify("READY=1");
            wait_for("go");
            counted(&mut raw_channel());
            0
        }
        "million" => {
            let count = argument.parse().expect("a count");
            host(4, |running| million(running, count), |worker| talk(worker, count))
        }
        "slow" => host(2, slow, floods_or_answers),
        _ => panic!("unknown role {name}"),
    }
}

/// The bytes that the master must grow by less than, whatever its workers send.
pub(crate) const MOST_GROWTH: u64 = 32 << 20;
/// What may wait for each worker that is slow to read.
const QUEUE: u64 = 8 << 20;

fn raw_channel() -> UnixStream {
    let number = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel").parse().expect("a number");
    UnixStream::from(sys::inherited(number))
}

/// A worker in no way ours, whose slot says what it does to its channel. The first one never reads.
fn raw() -> i32 {
    let mut channel = raw_channel();
    notify("READY=1");
    wait_for("go");
    if std::env::var("PROTEUS_SLOT").expect("a slot") != "0" {
        let mut reading = channel.try_clone().expect("a descriptor");
        std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
    }
    match std::env::var("PROTEUS_SLOT").expect("a slot").as_str() {
        "0" => flood(
            &mut channel,
            &[b"{\"cmd\":\"flood\",\"n\":1}\n".repeat(1000), b"junk\n".repeat(1000)].concat(),
        ),
        "1" => single_bytes(&mut channel),
        "2" => giant(&mut channel),
        _ => counted(&mut channel),
    }
    0
}

fn wait_for(file: &str) {
    while !Path::new(file).exists() {
        pause();
    }
}

fn flood(channel: &mut UnixStream, lines: &[u8]) {
    while channel.write_all(lines).is_ok() {}
}

fn single_bytes(channel: &mut UnixStream) {
    for byte in b"{\"cmd\":\"slow\",\"n\":1}\n".iter().cycle() {
        if channel.write_all(&[*byte]).is_err() {
            return;
        }
    }
}

/// One line of a gigabyte, and then nothing.
fn giant(channel: &mut UnixStream) {
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..sample_or_full(64, 1024) {
        channel.write_all(&piece).expect("the master reads");
    }
    channel.write_all(b"\n{\"cmd\":\"after\"}\n").expect("the master reads");
    std::fs::write("giant", "").expect("a file");
    wait_for("never");
}

/// So many lines of each kind, and then nothing.
fn counted(channel: &mut UnixStream) {
    let oversize = [vec![b'x'; (4 << 20) + 1], b"\n".to_vec()].concat();
    let deep = [b"[".repeat(100_000), b"\n".to_vec()].concat();
    for _ in 0..COUNTED {
        channel
            .write_all(b"{\"cmd\":\"good\"}\nbad\n\"\xff\"\n\n\"good\"\n{\"cmd\":\"__proto__\"}\n")
            .expect("the master reads");
    }
    channel.write_all(&[oversize, deep].concat()).expect("the master reads");
    std::fs::write("counted", "").expect("a file");
    wait_for("never");
}

/// How often the lines above are sent: three good ones and three bad ones.
pub(crate) const COUNTED: u64 = 1000;
/// The oversize one and the deep one.
pub(crate) const COUNTED_ONCE: u64 = 2;

/// Numbers up, and numbers down that are counted: each worker's own stream, in order.
fn talk(worker: &Worker, count: u64) {
    let (heard, done) = (AtomicU64::new(0), worker.clone());
    worker.on_message("down", move |message| {
        let number = message.value()["n"].as_u64().expect("a number");
        assert_eq!(number, heard.fetch_add(1, Ordering::SeqCst), "in order");
        if number + 1 == count {
            done.send(json!({ "cmd": "all" })).expect("sent");
        }
    });
    worker.ready().expect("told the master");
    for n in 0..count {
        worker.send(json!({ "cmd": "up", "n": n })).expect("sent");
    }
    worker.wait_for_disconnect();
}

fn million(mut running: Running, count: u64) {
    let next: Mutex<HashMap<u64, u64>> = Mutex::default();
    let (tell_up, up) = channel();
    running
        .handle
        .add_message_listener("up", move |message, worker| {
            let mut next = next.lock().expect("nobody panicked");
            let expected = next.entry(worker.id()).or_default();
            assert_eq!(message.value()["n"], *expected, "in order");
            *expected += 1;
            if *expected == count {
                tell_up.send(worker.id()).expect("waited for");
            }
        })
        .expect("not ended");
    let (tell_down, down) = channel();
    running
        .handle
        .add_message_listener("all", move |_, worker| tell_down.send(worker.id()).expect("waited for"))
        .expect("not ended");
    let thread = running.start();
    running.wait_ready();
    let before = proc::resident(std::process::id());
    let refused = send_down(&running.handle, count);
    for told in [up, down] {
        let mut ids: Vec<u64> =
            (0..4).map(|_| told.recv_timeout(PATIENCE).expect("all of one worker")).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3, 4]);
    }
    let grown = proc::peak(std::process::id()).saturating_sub(before);
    record("messages", format_args!("{count} each way and worker; grown by {} KiB", grown >> 10));
    assert!(grown < MOST_GROWTH + 4 * QUEUE, "grown by {} KiB", grown >> 10);
    let status = running.handle.status().expect("a status");
    assert_eq!((status.dropped.messages, status.master.listener_panics), (refused, 0));
    end(&running.handle, thread);
}

/// To each worker in turn; one whose queue is full gets it again. How often that was.
fn send_down(handle: &Handle, count: u64) -> u64 {
    let mut refused = 0;
    for n in 0..count {
        let message = json!({ "cmd": "down", "n": n });
        for worker in 1..=4 {
            while let Err(error) = handle.send_message_to(worker, &message) {
                assert!(error.is_full(), "{error}");
                refused += 1;
                pause();
            }
        }
    }
    refused
}

/// In slot 0, sends to a listener that is slow, as fast as it can; in slot 1, answers.
fn floods_or_answers(worker: &Worker) {
    worker.on_request("who", {
        let id = worker.id();
        move |_| id
    });
    worker.ready().expect("told the master");
    if worker.slot() == 0 {
        let text = "x".repeat(1000);
        for n in 0.. {
            if worker.send(json!({ "cmd": "slow", "n": n, "text": text })).is_err() {
                return;
            }
        }
    }
    worker.send(json!({ "cmd": "nobody listens" })).expect("sent");
    worker.wait_for_disconnect();
}

/// A listener that stands still: its sender waits, nothing is lost, and nobody else minds.
fn slow(mut running: Running) {
    let (heard, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new((Mutex::new(false), Condvar::new())));
    let (noted, waits) = (Arc::clone(&heard), Arc::clone(&gate));
    let listen = move |message: &Message, worker: &WorkerInfo| {
        let open = waits.0.lock().expect("nobody panicked");
        drop(waits.1.wait_while(open, |open| !*open).expect("nobody panicked"));
        noted
            .lock()
            .expect("nobody panicked")
            .push((worker.id(), message.value()["n"].as_u64().expect("a number")));
    };
    running.handle.add_message_listener("slow", listen).expect("not ended");
    let thread = running.start();
    running.wait_ready();
    let before = proc::resident(std::process::id());
    let count = || running.handle.status().expect("a status").workers[0].messages_in;
    let mut last = 0;
    wait_until("the flood stands still", || std::mem::replace(&mut last, count()) == last && last > 1000);
    let replies = running.handle.request(json!({ "cmd": "who" }), Duration::from_secs(2)).expect("results");
    let other = replies.iter().find(|reply| reply.worker().slot() == 1).expect("asked");
    assert!(other.message().is_some(), "{replies:?}");
    let status = running.handle.status().expect("a status");
    sys::kill(status.workers[0].pid.expect("it lives"), libc::SIGKILL);
    running.wait_for(|status| status.forks.crashes == 1);
    let grown = proc::peak(std::process::id()).saturating_sub(before);
    record("a listener that stands still", format_args!("grown by {} KiB", grown >> 10));
    assert!(grown < MOST_GROWTH, "grown by {} KiB", grown >> 10);
    let messages = running.handle.status().expect("a status").dropped.messages;
    assert!(messages <= 1, "one may have been torn by SIGKILL: {messages}");
    *gate.0.lock().expect("nobody panicked") = true;
    gate.1.notify_all();
    wait_until("its successor is heard", || {
        heard.lock().expect("nobody panicked").iter().any(|(id, _)| *id == 3)
    });
    let heard = heard.lock().expect("nobody panicked").clone();
    for id in [1, 3] {
        let numbers = heard.iter().filter(|(from, _)| *from == id).map(|(_, n)| *n);
        assert!(numbers.enumerate().all(|(at, n)| at as u64 == n), "in order, and none is missing");
    }
    assert!(heard.iter().filter(|(from, _)| *from == 1).count() as u64 >= last, "what it sent is heard");
    running.handle.force_shutdown().expect("taken");
    assert_eq!(thread.join().expect("no panic").expect("a cluster"), Exit::Forced);
}
