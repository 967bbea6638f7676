//! Masters and workers that talk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proteus_cluster::{Builder, Cluster, Config, Exit, Handle, Ready, Worker};
use serde_json::json;

use crate::harness::{PATIENCE, eventually};

#[path = "../../../examples/messages.rs"]
mod example;

pub(super) fn play(name: &str, argument: &str) -> i32 {
    match name {
        "example" => i32::from(example::main().is_err()),
        "burst" => host(1, hear_burst, |worker| burst(worker, argument)),
        "panicking" => host(1, panicking, panics),
        "held" => host(1, held, registers_late),
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
struct Running {
    handle: Handle,
    cluster: Option<Cluster>,
}

impl Running {
    fn start(&mut self) -> JoinHandle<proteus_cluster::Result<Exit>> {
        let cluster = self.cluster.take().expect("started once");
        thread::spawn(move || cluster.run())
    }

    fn wait_ready(&self) {
        eventually("all are ready", || {
            let status = self.handle.status().ok()?;
            let ready = !status.workers.is_empty() && status.workers.iter().all(|row| row.state == "ready");
            ready.then_some(())
        });
    }
}

fn end(handle: &Handle, thread: JoinHandle<proteus_cluster::Result<Exit>>) {
    handle.shutdown().expect("taken");
    assert_eq!(thread.join().expect("no panic").expect("a cluster"), Exit::Graceful);
}

/// Runs `lead` where no master has started this process; in a worker, `serve`.
fn host(workers: usize, lead: impl FnOnce(Running), serve: impl FnOnce(&Worker)) -> i32 {
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
