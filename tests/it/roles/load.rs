//! Workers that are put under load, and workers that are bad releases.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proteus_cluster::{Config, Worker};

use super::{notify, serve_until};
use crate::harness::{pause, sys};

fn this_worker() -> Worker {
    Worker::from_env().expect("a worker").expect("started by a master")
}

/// One connection at a time. `mode` is `blocking`, or `nonblocking`: the worker sets the listener so.
pub(super) fn plain(mode: &str) -> i32 {
    let worker = this_worker();
    let listener = worker.listener("http").expect("the listener");
    if mode == "nonblocking" {
        listener.set_nonblocking(true).expect("set");
    }
    worker.ready().expect("told the master");
    for stream in worker.incoming(&listener) {
        drop(serve_until(&stream, || worker.disconnect_requested()));
    }
    0
}

/// A thread for each connection, each counted as work in flight until it ends.
pub(super) fn threads() -> i32 {
    let config = Config::builder().build().expect("good settings");
    let ended = proteus_cluster::run(config, |worker| {
        let listener = worker.listener("http")?;
        worker.ready()?;
        for stream in worker.incoming(&listener) {
            let (guard, worker) = (worker.in_flight(), worker.clone());
            std::thread::spawn(move || {
                drop(serve_until(&stream, || worker.disconnect_requested()));
                drop(guard);
            });
        }
        Ok(())
    });
    i32::from(ended.is_err())
}

/// A worker in no way ours that loses nothing: SIGTERM ends its accepting, then it finishes its connections.
pub(super) fn drains() -> i32 {
    let listener = TcpListener::from(sys::inherited(3));
    listener.set_nonblocking(true).expect("set");
    let (told, tell) = UnixStream::pair().expect("a pair");
    let leaving = Arc::<AtomicBool>::default();
    signal_hook::flag::register(libc::SIGTERM, Arc::clone(&leaving)).expect("registered");
    signal_hook::low_level::pipe::register(libc::SIGTERM, tell).expect("registered");
    notify("READY=1");
    let mut at_work = Vec::new();
    while !leaving.load(Ordering::SeqCst) {
        sys::wait_readable(&[listener.as_fd(), told.as_fd()]);
        let Ok((stream, _)) = listener.accept() else { continue };
        stream.set_nonblocking(false).expect("set");
        let leaving = Arc::clone(&leaving);
        at_work
            .push(std::thread::spawn(move || drop(serve_until(&stream, || leaving.load(Ordering::SeqCst)))));
    }
    for thread in at_work {
        thread.join().expect("no panic");
    }
    0
}

/// As [`plain`], but not ready before the file exists.
pub(super) fn gated(gate: &str) -> i32 {
    // Hello first, so that readiness is waited for.
    let _worker = this_worker();
    while !Path::new(gate).exists() {
        pause();
    }
    plain("blocking")
}

/// Ready, and deaf to every order.
pub(super) fn deaf() -> i32 {
    this_worker().ready().expect("told the master");
    forever()
}

/// Ready, and dead soon after.
pub(super) fn brief(milliseconds: &str) -> i32 {
    this_worker().ready().expect("told the master");
    std::thread::sleep(Duration::from_millis(milliseconds.parse().expect("milliseconds")));
    9
}

/// Says nothing, serves nothing.
pub(super) fn mute() -> i32 {
    forever()
}

fn forever() -> i32 {
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    drop((&ours).read(&mut [0])); // nobody writes
    0
}
