//! Workers that log.

use std::time::Duration;

use proteus_cluster::{Worker, logger};

pub(super) fn play(what: &str) -> i32 {
    logger::init();
    log::info!("before it is a worker");
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    match what {
        "all-kinds" => all_kinds(&worker),
        "panic" => std::thread::Builder::new()
            .name("fatal".into())
            .spawn(|| panic!("lost\nits {}", "head"))
            .expect("a thread")
            .join()
            .map_or(101, |()| 0),
        "abort" => abort(),
        "flood" => flood(&worker),
        "in-order" => in_order(&worker),
        _ => panic!("unknown: {what}"),
    }
}

fn all_kinds(worker: &Worker) -> i32 {
    log::error!("an error\n[forged] \u{1b}[31m");
    log::warn!(target: "app::db", n = -3, who = "a\nb", ok = true; "with key-values");
    log::debug!("debug is on");
    log::debug!(target: "quiet", "filtered by RUST_LOG");
    log::info!("{}", "x".repeat(100_000));
    worker.ready().expect("told the master");
    worker.wait_for_disconnect();
    log::info!("the last line of worker {}", worker.id());
    0
}

/// Lines, and a message between each two of them.
fn in_order(worker: &Worker) -> i32 {
    for number in 0..2000 {
        log::info!("line {number}");
        worker.send(number).expect("sent");
    }
    std::process::exit(7)
}

/// What a panic hook, a signal handler or a shell would do: no time for anything.
fn abort() -> i32 {
    for number in 0..1000 {
        eprintln!("number {number} of many lines, sixty bytes each or so, on stderr");
    }
    std::process::abort()
}

/// More than any channel takes, at once; its own threads must not wait for it.
fn flood(worker: &Worker) -> i32 {
    worker.ready().expect("told the master");
    while !worker.disconnect_requested() {
        for number in 0..20_000 {
            log::info!("flood {number}");
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    0
}
