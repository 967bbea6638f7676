//! Programs that handle signals of their own before, beside and after a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use proteus_cluster::{Cluster, Exit, Worker};

use super::guest::config;
use crate::harness::{eventually, sys, wait_until};

/// Runs one life of a host; in a worker, serves.
pub(super) fn play(life: &str) -> i32 {
    if let Some(worker) = Worker::from_env().expect("a clear role") {
        worker.ready().expect("told the master");
        worker.wait_for_disconnect();
        return 0;
    }
    match life {
        "hooks-after" => hooks_after(),
        "hooks-meanwhile" => hooks_meanwhile(),
        "few-descriptors" => few_descriptors(),
        "second-cluster-below" => second_cluster_below(),
        _ => panic!("what is {life}?"),
    }
    0
}

/// Serves on a thread that blocks every signal, in a program that handles SIGURG itself.
pub(super) fn urgent() -> i32 {
    sys::count(libc::SIGURG);
    (1..65).for_each(sys::block);
    let worker = Worker::from_env().expect("a clear role").expect("a worker");
    let listener = worker.listener("http").expect("a listener");
    worker.ready().expect("told the master");
    worker.incoming(&listener).for_each(drop);
    0
}

const ORDERS: [i32; 8] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGHUP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
];

fn cluster() -> Cluster {
    Cluster::new(config().build().expect("good settings")).expect("a cluster")
}

/// A cluster from its start to its end, while which `meanwhile` happens.
fn whole_life(meanwhile: impl FnOnce()) {
    let cluster = cluster();
    let handle = cluster.handle();
    let thread = thread::spawn(move || cluster.run());
    eventually("ready", || handle.status().ok().filter(|status| status.master.ready));
    meanwhile();
    handle.shutdown().expect("taken");
    assert_eq!(thread.join().expect("no panic").expect("a cluster"), Exit::Graceful);
}

/// A handler by signal-hook, which tokio's go by too.
fn hook(signal: i32) -> Arc<AtomicBool> {
    let came = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal, Arc::clone(&came)).expect("a handler");
    came
}

fn arrives(signal: i32, came: &AtomicBool) {
    came.store(false, SeqCst);
    sys::kill(std::process::id(), signal);
    wait_until(&format!("signal {signal} is heard"), || came.load(SeqCst));
}

/// Handlers that are installed once the cluster has ended are in place.
fn hooks_after() {
    whole_life(|| ());
    for signal in ORDERS {
        arrives(signal, &hook(signal));
    }
}

/// A handler that is installed while the cluster runs hears beside it, and outlives it; so in a second cluster.
fn hooks_meanwhile() {
    let mut hooks = Vec::new();
    whole_life(|| hooks = ORDERS[..5].iter().map(|signal| (*signal, hook(*signal))).collect());
    for _ in 0..2 {
        for (signal, came) in &hooks {
            arrives(*signal, came);
        }
        whole_life(|| hooks.iter().for_each(|(signal, came)| arrives(*signal, came)));
    }
    assert_eq!(sys::counted(libc::SIGUSR2), 0);
}

/// A start that fails for want of descriptors, at whatever step, and is made again with enough of them.
fn few_descriptors() {
    let enough = 1024;
    sys::limit_descriptors(std::process::id(), enough);
    for limit in 5..=40 {
        sys::limit_descriptors(std::process::id(), limit);
        let failed = Cluster::new(config().build().expect("good settings")).is_err();
        sys::limit_descriptors(std::process::id(), enough);
        if !failed {
            continue;
        }
        let cluster = cluster();
        let caught = crate::harness::proc::status_field("self", "SigCgt").expect("a set");
        let caught = u64::from_str_radix(&caught, 16).expect("hexadecimal");
        for signal in ORDERS {
            assert!(caught & 1 << (signal - 1) != 0, "{signal} is not caught after a failure at {limit}");
        }
        drop(cluster);
    }
    whole_life(|| sys::kill(std::process::id(), libc::SIGHUP));
}

/// The handler that the program had before is called beside the cluster's, once a signal, and is there again after it.
fn second_cluster_below() {
    sys::count(libc::SIGUSR2);
    let heard = std::cell::OnceCell::new();
    // Handled before kill returns, on this only thread that does not block it or on the loop's.
    let send = |times: usize| {
        sys::kill(std::process::id(), libc::SIGUSR2);
        wait_until("once more", || sys::counted(libc::SIGUSR2) >= times);
        assert_eq!(sys::counted(libc::SIGUSR2), times);
    };
    whole_life(|| {
        send(1);
        heard.set(hook(libc::SIGUSR2)).expect("once");
        send(2);
    });
    send(3);
    whole_life(|| send(4));
    send(5);
    assert!(heard.get().expect("a hook").load(SeqCst));
}
