//! Workers that log.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use proteus_cluster::{Api, Cluster, Config, LogFile, Worker, logger};

pub(super) fn play(what: &str) -> i32 {
    match what {
        "host" => return host(),
        "gives-up-none" => return gives_up(),
        _ => logger::init(),
    }
    if what == "gives-up-ours" {
        return gives_up();
    }
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

/// A master whose worker dies at once.
fn gives_up() -> i32 {
    let config = Config::builder().workers(1).exec("false").max_fork_count(0).build().expect("settings");
    Cluster::new(config).expect("a cluster").run().expect("it runs").code().into()
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

/// A program with a logger of its own in both roles, which stands still once there is a file `stop`.
struct HostLogger;

impl log::Log for HostLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        while Path::new("stop").exists() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let line = format!("{} {} {}\n", record.level(), record.target(), record.args());
        let file = OpenOptions::new().append(true).create(true).open("host.log");
        drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
    }

    fn flush(&self) {}
}

fn host() -> i32 {
    let worker = Worker::from_env().expect("a clear role");
    if let Some(worker) = worker {
        // Ours, since the worker has none yet.
        logger::init();
        log::warn!(target: "inside", "from worker {}", worker.id());
        worker.ready().expect("told the master");
        worker.wait_for_disconnect();
        return 0;
    }
    log::set_logger(&HostLogger).expect("the first logger");
    log::set_max_level(log::LevelFilter::Info);
    logger::init(); // changes nothing
    let api = Api::new(format!("unix:{}/api.sock", super::guest::folder()));
    let config = super::guest::config().api(api);
    let refused = config.clone().log_file(LogFile::new("never.log")).build().expect("good settings");
    let error = Cluster::new(refused).unwrap_err();
    assert!(error.is_setting() && error.to_string().starts_with("setting `logFile`: takes"), "{error}");
    let cluster = Cluster::new(config.build().expect("good settings")).expect("a cluster");
    i32::from(cluster.run().expect("a cluster").code())
}
