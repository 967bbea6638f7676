//! A service in one closure, in all the ways that one can end, and workers with questions of their own.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proteus_cluster::{Api, Exit, Worker};

use super::guest::{config, folder};
use crate::harness::{pause, sys};

pub(super) fn play(name: &str, argument: &str) -> i32 {
    match name {
        "interruptible" => interruptible(),
        "family" => family(),
        "main" => main(argument),
        _ => panic!("unknown role {name}"),
    }
}

/// A worker that says with its status whether SIGINT ever reached it.
fn interruptible() -> i32 {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGINT, Arc::clone(&interrupted)).expect("a handler");
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    worker.ready().expect("told the master");
    worker.wait_for_disconnect();
    if interrupted.load(Ordering::SeqCst) { 7 } else { 0 }
}

/// A worker whose children ask whether they are workers, before and after it has taken its channel.
fn family() -> i32 {
    if std::env::var_os("PROTEUS_TEST_CHILD").is_some() {
        return i32::from(Worker::from_env().expect("no contradiction").is_some());
    }
    let channel = std::env::var("PROTEUS_CHANNEL_FD").expect("a channel");
    assert!(has_descriptor(&channel), "children are born with the channel until somebody takes it");
    assert_eq!(child_status(), Some(0), "a child with the channel");
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    let again = Worker::from_env().expect("a worker").expect("the same again");
    assert_eq!(worker.id(), again.id());
    assert_eq!(child_status(), Some(0), "a child without the channel");
    worker.listener("http").expect("the listener is still there");
    again.ready().expect("told the master");
    worker.wait_for_disconnect();
    0
}

fn has_descriptor(number: &str) -> bool {
    Path::new("/proc/self/fd").join(number).exists()
}

fn child_status() -> Option<i32> {
    let mut child = Command::new(std::env::current_exe().expect("the test binary"));
    child.args(std::env::args().skip(1)).env("PROTEUS_TEST_CHILD", "1").status().expect("a child").code()
}

/// `fn main() -> proteus_cluster::Result<Exit>`, with its status as Rust's runtime would give it.
fn main(closure: &str) -> i32 {
    proteus_cluster::logger::init();
    match service(closure) {
        Ok(exit) => exit.code().into(),
        Err(error) => {
            eprintln!("Error: {error:?}");
            1
        }
    }
}

fn service(closure: &str) -> proteus_cluster::Result<Exit> {
    let config = config().api(Api::new(format!("unix:{}/api.sock", folder())));
    match closure {
        "fails" => proteus_cluster::run(config.build()?, |worker| fails(&worker)),
        "panics" => proteus_cluster::run(config.build()?, |worker| {
            worker.ready()?;
            if is_told_to_fail(&worker) { panic!("at the {}", "disco") } else { Ok(()) }
        }),
        "never-starts" => {
            proteus_cluster::run(config.max_fork_count(2).build()?, |_| Err("no licence".into()))
        }
        "in-flight" => proteus_cluster::run(config.build()?, |worker| in_flight(&worker)),
        "orphaned" => {
            outlive_master();
            proteus_cluster::run(config.build()?, |worker| orphaned(&worker))
        }
        "taken" => {
            let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
            let taken = holder.local_addr().expect("bound").to_string();
            proteus_cluster::run(config.listen("http", taken).build()?, |_| Ok(()))
        }
        _ => panic!("unknown closure {closure}"),
    }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn fails(worker: &Worker) -> Outcome {
    worker.ready()?;
    if is_told_to_fail(worker) { Err("no database\nat all".into()) } else { Ok(()) }
}

/// By a file; no longer once the worker may go.
fn is_told_to_fail(worker: &Worker) -> bool {
    while !Path::new("fail").exists() {
        if worker.disconnect_requested() {
            return false;
        }
        pause();
    }
    true
}

/// Its closure ends at once, its work when the file is there.
fn in_flight(worker: &Worker) -> Outcome {
    worker.ready()?;
    let guard = worker.in_flight();
    thread::spawn(move || {
        wait_for_file("finish");
        std::fs::write("done", "").expect("a file");
        drop(guard);
    });
    worker.wait_for_disconnect();
    std::fs::write("returned", "").expect("a file");
    Ok(())
}

/// Makes the worker one that only its channel tells of the master's end. The parent-death signal is the
/// main thread's, and this is another; but the thread that execs becomes the main one.
fn outlive_master() {
    let is_worker = std::env::var_os("PROTEUS_CHANNEL_FD").is_some();
    if is_worker && std::env::var_os("PROTEUS_TEST_OUTLIVES").is_none() {
        sys::outlive_parent();
        let mut again = Command::new(std::env::current_exe().expect("the test binary"));
        let error = again.args(std::env::args().skip(1)).env("PROTEUS_TEST_OUTLIVES", "1").exec();
        panic!("{error}");
    }
}

fn orphaned(worker: &Worker) -> Outcome {
    worker.ready()?;
    worker.wait_for_disconnect();
    std::fs::write(format!("left-{}", worker.slot()), "")?;
    Ok(())
}

/// The work of a worker that waits for something, without an end of its own.
fn wait_for_file(name: &str) {
    while !Path::new(name).exists() {
        pause();
    }
}
