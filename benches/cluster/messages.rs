//! Messages: one way against Node's cluster, and there and back against a bare pair of sockets.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use proteus_cluster::{Cluster, Config, Handle, Worker};
use serde_json::{Value, json};

use crate::median;
use crate::stage::{Running, Stage};

const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cluster/node.js");
/// Messages that a worker sends when it is asked for more, here as in Node.
const BATCH: u64 = 1000;
const ROUNDS: usize = 7;
const WINDOW: Duration = Duration::from_millis(700);

/// From a worker to a listener in the master, 100 bytes each.
pub(crate) fn one_way() {
    let what = "messages a second, worker to master; bare: Node's";
    if !Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok_and(|done| done.success())
    {
        println!("{what:<58} {:>12} there is no node here", "");
        return;
    }
    let node = || {
        let mut node = Command::new("node");
        node.arg(NODE).arg(WINDOW.as_secs_f64().to_string());
        rate_of(&mut node)
    };
    compare(what, ">= 2.5", || rate_of(&mut Stage::new("one-way").command("one-way")), node);
}

/// A message to a worker and back, 100 bytes each, against a byte-for-byte echo over a pair of sockets.
pub(crate) fn there_and_back() {
    let what = "round trips a second; bare: over a pair of sockets";
    let ours = || rate_of(&mut Stage::new("ping-pong").command("ping-pong"));
    compare(what, ">= 0.9", ours, bare_round_trips);
}

fn compare(what: &str, bar: &str, mut ours: impl FnMut() -> f64, mut bare: impl FnMut() -> f64) {
    let (mut rates, mut bare_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (rate, bare_rate) = (ours(), bare());
        rates.push(rate);
        bare_rates.push(bare_rate);
        ratios.push(rate / bare_rate);
    }
    let (rate, bare_rate, ratio) = (median(&mut rates), median(&mut bare_rates), median(&mut ratios));
    println!("{what:<58} {rate:>12.0} {bare_rate:>12.0} {ratio:>7.3}  {bar}");
}

/// What a measuring process says.
fn rate_of(command: &mut Command) -> f64 {
    let output = command.stderr(Stdio::inherit()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{command:?} said {text:?}"))
}

/// The role of a master and its one worker.
pub(crate) fn play(what: &str) {
    if let Some(worker) = Worker::from_env().expect("a clear role") {
        return serve(&worker);
    }
    let cluster =
        Cluster::new(Config::builder().workers(1).build().expect("good settings")).expect("a cluster");
    let handle = cluster.handle();
    let rates = match what {
        "one-way" => count_one_way(&handle),
        _ => count_round_trips(&handle),
    };
    std::thread::spawn(move || {
        println!("{}", rates.recv().expect("a rate"));
        std::process::exit(0);
    });
    cluster.run().expect("it runs").code();
}

/// `{"cmd":CMD,"msg":"aaa…"}`, 100 bytes long.
fn message(cmd: &str) -> Value {
    let bare = json!({ "cmd": cmd, "msg": "" }).to_string().len();
    json!({ "cmd": cmd, "msg": "a".repeat(100 - bare) })
}

fn serve(worker: &Worker) {
    let (sending, echoing) = (worker.clone(), worker.clone());
    let one = message("b");
    worker.on_message("more", move |_| {
        for _ in 0..BATCH {
            sending.send(&one).expect("the master lives");
        }
    });
    worker.on_message("x", move |message| echoing.send(message.value()).expect("the master lives"));
    worker.ready().expect("told the master");
    worker.send(json!({ "cmd": "ready" })).expect("the master lives");
    worker.wait_for_disconnect();
}

fn count_one_way(handle: &Handle) -> Receiver<f64> {
    let (tell, told) = channel();
    let (asking, starting) = (handle.clone(), handle.clone());
    let (mut heard, mut began) = (0u64, None);
    let count = move || {
        heard += 1;
        let began = *began.get_or_insert_with(Instant::now);
        if heard % BATCH == 0 {
            if began.elapsed() < WINDOW {
                asking.send_message(json!({ "cmd": "more" })).expect("a worker");
            } else {
                // Told once; what comes after it is of no interest.
                let _ = tell.send(rate(heard, began));
            }
        }
    };
    let count = std::cell::RefCell::new(count);
    // The text is looked at, as a listener does.
    handle
        .add_message_listener("b", move |message, _| {
            assert!(message.value()["msg"].is_string());
            (count.borrow_mut())();
        })
        .expect("not ended");
    handle
        .add_message_listener("ready", move |_, _| {
            starting.send_message(json!({ "cmd": "more" })).expect("a worker");
        })
        .expect("not ended");
    told
}

fn count_round_trips(handle: &Handle) -> Receiver<f64> {
    let (tell, told) = channel();
    let (answering, starting, ball) = (handle.clone(), handle.clone(), message("x"));
    let first = ball.clone();
    let state = std::cell::Cell::new((0u64, None));
    handle
        .add_message_listener("x", move |_, worker| {
            let (heard, began) = state.get();
            let began = began.unwrap_or_else(Instant::now);
            state.set((heard + 1, Some(began)));
            if began.elapsed() < WINDOW {
                answering.send_message_to(worker.id(), &ball).expect("a worker");
            } else {
                let _ = tell.send(rate(heard, began));
            }
        })
        .expect("not ended");
    handle
        .add_message_listener("ready", move |_, worker| {
            starting.send_message_to(worker.id(), &first).expect("a worker");
        })
        .expect("not ended");
    told
}

/// The same bytes to an echo in another process, with nothing in between.
fn bare_round_trips() -> f64 {
    let stage = Stage::new("ping-pong-bare");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let echo = stage.command("echo").stdin(Stdio::from(OwnedFd::from(theirs))).spawn().expect("it starts");
    let _running = Running(echo);
    let line = format!("{}\n", message("x"));
    let mut buffer = vec![0; line.len()];
    let (mut count, mut began) = (0u64, None);
    loop {
        ours.write_all(line.as_bytes()).expect("written");
        ours.read_exact(&mut buffer).expect("read");
        let began = *began.get_or_insert_with(Instant::now);
        if began.elapsed() >= WINDOW {
            return rate(count, began);
        }
        count += 1;
    }
}

/// The role of the bare echo.
pub(crate) fn echo() {
    let mut socket = UnixStream::from(
        std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().expect("a descriptor"),
    );
    let mut buffer = [0; 4096];
    while let count @ 1.. = socket.read(&mut buffer).unwrap_or(0) {
        if socket.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn rate(count: u64, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}
