//! Masters and workers that talk.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proteus_cluster::{Builder, Cluster, Config, Exit, Handle, Ready, Reply, Status, Worker};
use serde_json::{Value, json};

use super::notify;
use crate::harness::{PATIENCE, eventually, pause, sys};

#[path = "../../../examples/messages.rs"]
mod example;

pub(super) fn play(name: &str, argument: &str) -> i32 {
    match name {
        "example" => i32::from(example::main().is_err()),
        "burst" => host(1, hear_burst, |worker| burst(worker, argument)),
        "aborts" if std::env::var_os("PROTEUS_WORKER_ID").is_some() => aborts(),
        "aborts" => host(1, hear_all_of_the_first, |_| ()),
        "panicking" => host(1, panicking, panics),
        "held" => host(1, held, registers_late),
        "requests" => host(3, requests, answers_requests),
        "plain" => plain(),
        "parrot" => parrot(),
        "busy-handler" => host(1, busy_handler, works_long),
        _ => panic!("unknown role {name}"),
    }
}

fn config(workers: usize) -> Builder {
    Config::builder()
        .workers(workers)
        .ready(Ready::Notify)
        .max_fork_count(100_000)
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .canary(Duration::from_millis(20))
        .min_uptime(Duration::from_millis(20))
        .disconnect_timeout(Duration::from_secs(20))
}

/// A cluster on a thread of its own, not running yet.
pub(super) struct Running {
    pub(super) handle: Handle,
    cluster: Option<Cluster>,
}

impl Running {
    pub(super) fn start(&mut self) -> JoinHandle<proteus_cluster::Result<Exit>> {
        let cluster = self.cluster.take().expect("started once");
        thread::spawn(move || cluster.run())
    }

    pub(super) fn wait_ready(&self) {
        self.wait_for(|status| {
            !status.workers.is_empty() && status.workers.iter().all(|row| row.state == "ready")
        });
    }

    pub(super) fn wait_for(&self, condition: impl Fn(&Status) -> bool) {
        eventually("a status", || self.handle.status().ok().filter(&condition));
    }
}

pub(super) fn end(handle: &Handle, thread: JoinHandle<proteus_cluster::Result<Exit>>) {
    handle.shutdown().expect("taken");
    assert_eq!(thread.join().expect("no panic").expect("a cluster"), Exit::Graceful);
}

/// Runs `lead` where no master has started this process; in a worker, `serve`.
pub(super) fn host(workers: usize, lead: impl FnOnce(Running), serve: impl FnOnce(&Worker)) -> i32 {
    proteus_cluster::logger::init();
    if let Some(worker) = Worker::from_env().expect("a clear role") {
        serve(&worker);
        return 0;
    }
    let cluster = Cluster::new(config(workers).build().expect("good settings")).expect("a cluster");
    lead(Running { handle: cluster.handle(), cluster: Some(cluster) });
    0
}

/// Numbers under `n`, told on to the test's thread with the worker that they are from.
fn numbers(handle: &Handle, cmd: &str) -> Receiver<(u64, u64)> {
    let (tell, told): (Sender<_>, _) = channel();
    let listen = move |message: &proteus_cluster::Message, worker: &proteus_cluster::WorkerInfo| {
        let number = message.value()["n"].as_u64().expect("a number");
        // Whoever listened may have heard enough.
        let _ = tell.send((worker.id(), number));
    };
    handle.add_message_listener(cmd, listen).expect("not ended");
    told
}

const BURST: u64 = 20_000;

/// Sends more than a socket's buffer holds, and ends in some way at once.
fn burst(worker: &Worker, way: &str) {
    worker.ready().expect("told the master");
    for n in 0..BURST {
        worker.send(json!({ "cmd": "n", "n": n })).expect("sent");
    }
    match way {
        "return" => {}
        "exit" => std::process::exit(3),
        "panic" => panic!("at the disco"),
        _ => panic!("unknown way {way}"),
    }
}

fn hear_burst(mut running: Running) {
    let told = numbers(&running.handle, "n");
    let thread = running.start();
    for expected in 0..BURST {
        let from_first = |(worker, number)| (worker == 1).then_some(number);
        let number = std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok()).find_map(from_first);
        assert_eq!(number, Some(expected));
    }
    running.handle.force_shutdown().expect("taken");
    assert_eq!(thread.join().expect("no panic").expect("a cluster"), Exit::Forced);
    assert!(running.handle.send_message(1).unwrap_err().is_ended());
    assert!(running.handle.add_message_listener("n", |_, _| ()).unwrap_err().is_ended());
}

/// How many lines of a hundred bytes are 60 KiB.
const LAST_WORDS: u64 = 614;

/// A worker in no way ours: 60 KiB on the channel, and then SIGABRT.
fn aborts() -> i32 {
    let number = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel").parse().expect("a number");
    let mut channel = UnixStream::from(sys::inherited(number));
    let padded = |n| format!("{:<99}\n", json!({ "cmd": "n", "n": n }).to_string());
    let lines: Vec<String> = (0..LAST_WORDS).map(padded).collect();
    channel.write_all(lines.concat().as_bytes()).expect("the master reads");
    std::process::abort()
}

fn hear_all_of_the_first(mut running: Running) {
    let told = numbers(&running.handle, "n");
    let thread = running.start();
    for expected in 0..LAST_WORDS {
        let from_first = |(worker, number)| (worker == 1).then_some(number);
        let number = std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok()).find_map(from_first);
        assert_eq!(number, Some(expected));
    }
    running.handle.force_shutdown().expect("taken");
    assert_eq!(thread.join().expect("no panic").expect("a cluster"), Exit::Forced);
}

/// Its handler panics on the number 1.
fn panics(worker: &Worker) {
    let answering = worker.clone();
    worker.on_message("n", move |message| {
        assert_ne!(message.value()["n"], 1, "one is bad");
        answering.send(message.value()).expect("sent");
    });
    worker.ready().expect("told the master");
    worker.wait_for_disconnect();
}

/// Panics on both sides end nothing, and are counted.
fn panicking(mut running: Running) {
    let told = numbers(&running.handle, "n");
    let thread = running.start();
    running.wait_ready();
    for n in 0..3 {
        running.handle.send_message(json!({ "cmd": "n", "n": n })).expect("sent");
    }
    assert_eq!(told.recv_timeout(PATIENCE), Ok((1, 0)));
    assert_eq!(told.recv_timeout(PATIENCE), Ok((1, 2)));
    running.handle.add_message_listener("n", |_, _| panic!("not\nthis one")).expect("not ended");
    running.handle.send_message_to(1, json!({ "cmd": "n", "n": 3 })).expect("sent");
    let status = eventually("the panics are counted", || {
        running.handle.status().ok().filter(|status| status.master.listener_panics == 1)
    });
    assert_eq!(status.workers[0].handler_panics, 1);
    assert_eq!((status.workers[0].messages_out, status.workers[0].messages_in), (4, 3));
    assert!(running.handle.send_message_to(99, 1).unwrap_err().is_gone());
    let reserved = running.handle.send_message(json!({ "cmd": "PROTEUS_DISCONNECT" })).unwrap_err();
    assert!(reserved.is_message(), "{reserved}");
    let told = numbers(&running.handle, "n");
    running.handle.send_message(json!({ "cmd": "n", "n": 4 })).expect("sent");
    assert_eq!(told.recv_timeout(PATIENCE), Ok((1, 4)));
    running.handle.remove_message_listener("n").expect("not ended");
    assert!(told.recv_timeout(PATIENCE).is_err(), "its listener is gone");
    end(&running.handle, thread);
}

/// Has handlers only after the first message was kept for a while, and counts what it gets.
fn registers_late(worker: &Worker) {
    let heard = AtomicU64::new(0);
    let (all, answering) = (worker.clone(), worker.clone());
    // In the order of the channel: once this is heard, what came before it is there.
    let (tell, told) = channel();
    worker.on_message("go", move |_| tell.send(()).expect("waited for"));
    told.recv_timeout(PATIENCE).expect("told to go on");
    worker.on_message("n", move |message| {
        let mut answer = message.value().clone();
        answer["cmd"] = json!("back");
        answering.send(answer).expect("sent");
    });
    worker.on_any_message(move |_| {
        all.send(json!({ "cmd": "count", "n": heard.fetch_add(1, Ordering::SeqCst) })).expect("sent");
    });
    worker.ready().expect("told the master");
    worker.wait_for_disconnect();
}

/// What is sent before the cluster runs, and before a handler is there, is heard all the same, in order.
fn held(mut running: Running) {
    let (back, count) = (numbers(&running.handle, "back"), numbers(&running.handle, "count"));
    running.handle.send_message("text").expect("kept");
    running.handle.send_message(json!({ "cmd": "n", "n": 0 })).expect("kept");
    let thread = running.start();
    eventually("it is there", || running.handle.send_message_to(1, json!({ "cmd": "n", "n": 1 })).ok());
    running.handle.send_message(json!({ "cmd": "go" })).expect("sent");
    running.wait_ready();
    running.handle.send_message(json!({ "cmd": "n", "n": 2 })).expect("sent");
    for n in 0..3 {
        assert_eq!(back.recv_timeout(PATIENCE), Ok((1, n)));
    }
    // The text, and the number that came after the general handler; `go` went to its own.
    for n in 0..2 {
        assert_eq!(count.recv_timeout(PATIENCE), Ok((1, n)));
    }
    end(&running.handle, thread);
}

/// Its handler takes until it is told to disconnect, and longer.
fn works_long(worker: &Worker) {
    let working = worker.clone();
    worker.on_message("work", move |_| {
        drop(working.listen("127.0.0.1:0").expect("a listener, while the handler runs"));
        working.send(json!({ "cmd": "begun", "n": 0 })).expect("sent");
        working.wait_for_disconnect();
        working.send(json!({ "cmd": "done", "n": 0 })).expect("sent");
    });
    proteus_cluster::run(Config::builder().build().expect("good settings"), |worker| {
        worker.ready()?;
        worker.wait_for_disconnect();
        Ok(())
    })
    .expect("a worker")
    .code();
}

/// A handler at work delays neither the order to disconnect nor an answer of the master, and is waited for.
fn busy_handler(mut running: Running) {
    let (begun, done) = (numbers(&running.handle, "begun"), numbers(&running.handle, "done"));
    let thread = running.start();
    running.wait_ready();
    running.handle.send_message(json!({ "cmd": "work" })).expect("sent");
    assert_eq!(begun.recv_timeout(PATIENCE), Ok((1, 0)));
    end(&running.handle, thread);
    assert_eq!(done.recv_timeout(PATIENCE), Ok((1, 0)));
}

/// A worker in no way ours: it reads lines from the channel and sends back the name of each, with its own number.
/// What the line says decides who dies of it, who stays silent, and who waits for a file.
fn plain() -> i32 {
    let number = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel").parse().expect("a number");
    let channel = UnixStream::from(sys::inherited(number));
    let id: u64 = std::env::var("PROTEUS_WORKER_ID").expect("an id").parse().expect("a number");
    let mut speaking = channel.try_clone().expect("a descriptor");
    notify("READY=1");
    for line in BufReader::new(channel).lines().map_while(Result::ok) {
        let line: Value = serde_json::from_str(&line).expect("JSON");
        let names = |what: &str| line[what].as_array().is_some_and(|ids| ids.contains(&json!(id)));
        if names("die") {
            return 9;
        }
        while line["wait"].as_str().is_some_and(|file| !Path::new(file).exists()) {
            pause();
        }
        if !names("silent") && !line["cmd"].is_null() {
            let reply = json!({ "cmd": line["cmd"], "msg": format!("from {id}") });
            speaking.write_all(format!("{reply}\n").as_bytes()).expect("the master reads");
        }
    }
    0
}

/// Replies to each question with the line under `line`, or with what it has heard.
fn parrot() -> i32 {
    let number = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel").parse().expect("a number");
    let channel = UnixStream::from(sys::inherited(number));
    let mut speaking = channel.try_clone().expect("a descriptor");
    notify("READY=1");
    for heard in BufReader::new(channel).lines().map_while(Result::ok) {
        let line: Option<Value> = serde_json::from_str(&heard).ok();
        let line = line.and_then(|line| {
            Some(
                line["line"]
                    .as_str()?
                    .replace("LONG", &"x".repeat(5 << 20))
                    .replace("MUCH", &"x".repeat(3 << 20)),
            )
        });
        let line = line.unwrap_or_else(|| json!({ "cmd": "x", "msg": heard }).to_string());
        speaking.write_all(format!("{line}\n").as_bytes()).expect("the master reads");
    }
    0
}

/// Answers requests by their name.
fn answers_requests(worker: &Worker) {
    let (id, own) = (worker.id(), worker.clone());
    worker.on_request("double", |message| message.value()["n"].as_u64().unwrap_or(0) * 2);
    worker.on_request("who", move |_| id);
    worker.on_request("panics-on", move |message| {
        assert_ne!(message.value()["n"], id, "not me");
        "fine"
    });
    worker.on_request("dies-on", move |message| {
        if message.value()["n"] == id {
            std::process::exit(9);
        }
    });
    worker.on_request("never", move |_| own.wait_for_disconnect());
    worker.on_message("by-name", {
        let answering = worker.clone();
        move |message| answering.send(message.value()).expect("sent")
    });
    worker.ready().expect("told the master");
    worker.wait_for_disconnect();
}

/// What each worker replied under `msg`, or why it did not.
fn results(replies: &[Reply]) -> Vec<(u64, Result<Value, String>)> {
    let result = |reply: &Reply| match (reply.message(), reply.error()) {
        (Some(message), None) => Ok(message.value()["msg"].clone()),
        (None, Some(error)) => Err(error.to_string()),
        both => panic!("{both:?}"),
    };
    replies.iter().map(|reply| (reply.worker().id(), result(reply))).collect()
}

fn requests(mut running: Running) {
    let thread = running.start();
    running.wait_ready();
    let handle = &running.handle;
    let ask = |message: Value| results(&handle.request(message, PATIENCE).expect("replies"));
    assert_eq!(ask(json!({ "cmd": "double", "n": 21 })), [1, 2, 3].map(|id| (id, Ok(json!(42)))));
    let panics = ask(json!({ "cmd": "panics-on", "n": 2 }));
    let text = panics[1].1.clone().unwrap_err();
    assert!(text.starts_with("worker 2 failed: panicked: ") && text.contains("not me"), "{text}");
    assert_eq!((&panics[0].1, &panics[2].1), (&Ok(json!("fine")), &Ok(json!("fine"))));
    let by_name = ask(json!({ "cmd": "by-name", "msg": "hello" }));
    assert_eq!(by_name, [1, 2, 3].map(|id| (id, Ok(json!("hello")))));
    many_at_once(handle);
    let dying = ask(json!({ "cmd": "dies-on", "n": 3 }));
    assert_eq!(dying[2], (3, Err("worker 3 ended before it replied".into())));
    running.wait_ready();
    full(handle);
    let late = handle.request(json!({ "cmd": "never" }), Duration::from_millis(50)).expect("results");
    assert!(late.iter().all(|reply| reply.error().is_some_and(proteus_cluster::Error::is_timeout)));
    let no_name = handle.request(json!([1]), PATIENCE).unwrap_err();
    assert!(no_name.is_message(), "{no_name}");
    assert!(handle.request(json!({ "cmd": "NODE_X" }), PATIENCE).unwrap_err().is_message());
    end(handle, thread);
    assert!(handle.request(json!({ "cmd": "double" }), PATIENCE).unwrap_err().is_ended());
}

/// The same question at the same time, from many threads; each gets its own answers.
fn many_at_once(handle: &Handle) {
    thread::scope(|scope| {
        for n in 0..8u64 {
            scope.spawn(move || {
                for round in 0..20 {
                    let question = json!({ "cmd": "double", "n": n * 100 + round });
                    let replies = handle.request(question, PATIENCE).expect("replies");
                    let expected = [1, 2, 3].map(|id| (id, Ok(json!((n * 100 + round) * 2))));
                    assert_eq!(results(&replies), expected);
                }
            });
        }
    });
}

/// A worker that stands still gets no more than its queue holds; the others are asked all the same.
fn full(handle: &Handle) {
    let status = handle.status().expect("a status");
    let still = &status.workers[0];
    let (id, pid) = (still.id, still.pid.expect("it lives"));
    sys::kill(pid, libc::SIGSTOP);
    let sizes = [1 << 20, 1 << 14, 1 << 8, 1];
    let sent: usize = sizes
        .iter()
        .map(|size| {
            let filler = "x".repeat(*size);
            size * std::iter::repeat_with(|| handle.send_message_to(id, &filler))
                .take_while(Result::is_ok)
                .count()
        })
        .sum();
    assert!((7 << 20..10 << 20).contains(&sent), "{sent} bytes");
    assert!(handle.send_message("filler").unwrap_err().is_full());
    let replies = handle.request(json!({ "cmd": "who" }), PATIENCE).expect("results");
    assert!(replies[0].error().is_some_and(proteus_cluster::Error::is_full), "{replies:?}");
    assert!(replies[1..].iter().all(|reply| reply.message().is_some()), "{replies:?}");
    assert_eq!(handle.status().expect("a status").dropped.messages, 6);
    sys::kill(pid, libc::SIGCONT);
    eventually("it reads again", || handle.send_message_to(id, "filler").ok());
    let replies = handle.request(json!({ "cmd": "who" }), PATIENCE).expect("results");
    assert!(replies.iter().all(|reply| reply.message().is_some()), "{replies:?}");
}
