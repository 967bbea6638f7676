//! Programs that embed a cluster beside a life of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proteus_cluster::{
    Api, Builder, Cluster, Config, Exit, ExitRecord, Handle, Ready, RestartOutcome, Status, Worker,
};

use super::closure;
use crate::harness::{eventually, pause, proc, sys, wait_until};

pub(super) fn play(name: &str, argument: &str) -> i32 {
    match name {
        "children" => host(|| children(argument.parse().expect("a count"))),
        "thief" => host(thief),
        "guarded" => host(guarded),
        "open-files" => host(|| open_files(argument)),
        "before-and-after" => host(|| before_and_after(argument)),
        "orders" => host(orders),
        "panics" => host(panics),
        "own-signals" => host(own_signals),
        _ => closure::play(name, argument),
    }
}

/// Where this process runs: the test's own folder.
pub(super) fn folder() -> String {
    std::env::current_dir().expect("a folder").display().to_string()
}

/// Two workers by this very program, quick to restart and to come back.
pub(super) fn config() -> Builder {
    Config::builder()
        .workers(2)
        .ready(Ready::Notify)
        .max_fork_count(100_000)
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .canary(Duration::from_millis(20))
        .min_uptime(Duration::from_millis(20))
        .disconnect_timeout(Duration::from_secs(20))
}

fn cluster() -> Cluster {
    Cluster::new(config().build().expect("good settings")).expect("a cluster")
}

/// Runs `life` where no master has started this process; in a worker, serves.
fn host(life: impl FnOnce()) -> i32 {
    let Some(worker) = Worker::from_env().expect("a clear role") else {
        life();
        return 0;
    };
    assert!(!Path::new("fail").exists(), "told to fail");
    worker.ready().expect("told the master");
    worker.wait_for_disconnect();
    0
}

/// A cluster on a thread of its own.
struct Running {
    handle: Handle,
    thread: JoinHandle<proteus_cluster::Result<Exit>>,
}

impl Running {
    fn start(cluster: Cluster) -> Self {
        Running { handle: cluster.handle(), thread: thread::spawn(move || cluster.run()) }
    }

    fn look(&self, condition: impl Fn(&Status) -> bool) -> Status {
        eventually("a status", || self.handle.status().ok().filter(|status| condition(status)))
    }

    fn wait_ready(&self) -> Vec<u32> {
        let status = self.look(is_ready);
        status.workers.iter().filter_map(|row| row.pid).collect()
    }

    fn stop(self) {
        self.handle.shutdown().expect("taken");
        self.end(Exit::Graceful);
    }

    fn end(self, exit: Exit) {
        assert_eq!(self.thread.join().expect("no panic").expect("a cluster"), exit);
        assert!(self.handle.status().unwrap_err().is_ended());
    }
}

fn is_ready(status: &Status) -> bool {
    status.workers.len() == 2 && status.workers.iter().all(|row| row.state == "ready")
}

/// Started with 200 of 400: what is in force before, while and after the cluster runs.
fn open_files(changed: &str) {
    assert_eq!(sys::most_open_files(), (200, 400));
    let running = Running::start(cluster());
    running.wait_ready();
    assert_eq!(sys::most_open_files(), (400, 400));
    if changed == "changed" {
        sys::limit_descriptors_to(std::process::id(), 300, 400);
    }
    running.stop();
    let after = if changed == "changed" { 300 } else { 200 };
    assert_eq!(sys::most_open_files(), (after, 400), "the host's own change stays");
}

/// Waits for any child, while there is a guard, while it is lost, and when it is gone.
fn guarded() {
    let running =
        Running::start(Cluster::new(config().guard(true).build().expect("good")).expect("a cluster"));
    running.wait_ready();
    let own = std::process::id();
    let is_guard = |pid: &u32| proc::status_field(pid, "Name").as_deref() == Some("proteus-guard");
    let guard = || proc::children(own).into_iter().find(is_guard);
    let first = eventually("a guard", guard);
    sys::kill(first, libc::SIGKILL);
    let second = eventually("another", || guard().filter(|pid| *pid != first && proc::is_alive(*pid)));
    assert_eq!(sys::reap_anybody(), None, "nobody's exit is there to take");
    running.stop();
    assert_eq!(proc::state(second), None, "ended with the cluster, and reaped");
    assert_eq!(sys::wait_for_anybody(), None, "no child is left to wait for");
}

/// Children of our own on four threads, while the cluster's crash and are rolled over.
fn children(each: usize) {
    let running = Running::start(cluster());
    running.wait_ready();
    let threads: Vec<_> = (0..4).map(|number| thread::spawn(move || raise(number, each))).collect();
    let mut disturbances = 0;
    while !threads.iter().all(JoinHandle::is_finished) {
        for pid in running.wait_ready() {
            sys::kill(pid, libc::SIGKILL);
        }
        running.wait_ready();
        let outcome = running.handle.restart().expect("taken").wait(Duration::from_secs(30));
        assert_eq!(outcome.expect("in time"), RestartOutcome::Completed);
        disturbances += 1;
    }
    for thread in threads {
        assert_eq!(thread.join().expect("every status was right"), each);
    }
    assert!(disturbances > 0);
    running.stop();
}

/// Children with known statuses, eight at a time; how many there were.
fn raise(number: usize, count: usize) -> usize {
    let mut waited = 0;
    for first in (0..count).step_by(8) {
        let some = (first..count.min(first + 8)).map(|child| {
            let status = i32::try_from((number * 61 + child) % 256).expect("small");
            let spawned = Command::new("sh").args(["-c", &format!("exit {status}")]).spawn();
            (status, spawned.expect("a child"))
        });
        for (status, mut child) in some.collect::<Vec<_>>() {
            assert_eq!(child.wait().expect("nobody took it").code(), Some(status));
            waited += 1;
        }
    }
    waited
}

/// Takes every exited child of the process, also the cluster's.
fn thief() {
    let running = Running::start(cluster());
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let thief = thread::spawn(move || {
        let mut stolen = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            stolen.extend(sys::reap_anybody());
            thread::yield_now();
        }
        stolen
    });
    let mut stolen = Vec::new();
    while stolen.len() < 3 {
        let pid = running.wait_ready()[0];
        let crashes = running.look(is_ready).forks.crashes;
        sys::kill(pid, libc::SIGKILL);
        let status = running.look(|status| status.forks.crashes > crashes && is_ready(status));
        let exits: Vec<_> = status.workers.iter().filter_map(|row| row.last_exit.as_ref()).collect();
        if exits.iter().any(|exit| exit.signal.is_none() && exit.code.is_none()) {
            stolen.push(pid);
        }
    }
    running.handle.shutdown().expect("taken");
    running.end(Exit::Graceful);
    over.store(true, Ordering::SeqCst);
    let taken = thief.join().expect("no panic");
    assert!(stolen.iter().all(|pid| taken.contains(pid)), "{stolen:?} {taken:?}");
}

/// What a cluster must leave as it found it.
#[derive(Debug, PartialEq)]
struct Traces {
    descriptors: BTreeMap<u32, String>,
    threads: usize,
    signals: [Option<String>; 3],
}

impl Traces {
    fn now() -> Self {
        let set = |name| proc::status_field("thread-self", name);
        let mut descriptors = proc::open_files(std::process::id());
        descriptors.retain(|_, target| !target.starts_with("/proc/")); // the look itself
        Traces {
            descriptors,
            threads: std::fs::read_dir("/proc/self/task").expect("/proc").count(),
            signals: [set("SigBlk"), set("SigIgn"), set("SigCgt")],
        }
    }

    #[track_caller]
    fn wait_for(&self) {
        let mut last = Traces::now();
        let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
        while last != *self {
            assert!(std::time::Instant::now() < deadline, "before {self:#?}\nafter {last:#?}");
            pause();
            last = Traces::now();
        }
    }
}

/// Two clusters in turn (with an API one, whose threads idle for seconds before they end); after each,
/// everything is as before. Then SIGINT ends this process.
fn before_and_after(api: &str) {
    for signal in [libc::SIGUSR2, libc::SIGTERM] {
        sys::count(signal);
    }
    sys::ignore(libc::SIGCHLD);
    sys::ignore(libc::SIGTTOU);
    sys::block(libc::SIGUSR1);
    sys::block(libc::SIGTERM); // the library lets it through while it runs
    let before = Traces::now();
    for _ in 0..if api.is_empty() { 2 } else { 1 } {
        let mut config = config();
        if api == "api" {
            config = config.api(Api::new(format!("unix:{}/api.sock", folder())));
        }
        let cluster = Cluster::new(config.build().expect("good settings")).expect("a cluster");
        let second = Cluster::new(self::config().build().expect("good settings")).unwrap_err();
        assert_eq!(second.to_string(), "this process has a cluster already");
        let orders = thread::spawn({
            let handle = cluster.handle();
            move || order_by_signals(&handle)
        });
        assert_eq!(cluster.run().expect("a cluster"), Exit::Graceful);
        orders.join().expect("the signals worked");
        before.wait_for();
        let counted = sys::counted(libc::SIGUSR2);
        sys::kill(std::process::id(), libc::SIGUSR2);
        wait_until("our own handler ran", || sys::counted(libc::SIGUSR2) == counted + 1);
    }
    drop(Cluster::new(config().build().expect("good settings")).expect("a cluster that never runs"));
    before.wait_for();
    assert!(Cluster::new(config().listen("http", "192.0.2.1:1").build().expect("good settings")).is_err());
    before.wait_for();
    sys::kill(std::process::id(), libc::SIGINT);
    wait_until("the end by SIGINT", || false);
}

fn order_by_signals(handle: &Handle) {
    let look =
        |condition: fn(&Status) -> bool| eventually("a status", || handle.status().ok().filter(&condition));
    look(is_ready);
    sys::kill(std::process::id(), libc::SIGUSR2);
    look(|status| status.restart.as_ref().is_some_and(|restart| restart.state == "completed"));
    look(is_ready);
    sys::kill(std::process::id(), libc::SIGTERM);
}

/// Orders early, late and meanwhile.
fn orders() {
    let cluster = Cluster::new(config().listen("http", "127.0.0.1:0").build().expect("good settings"));
    let cluster = cluster.expect("a cluster");
    let handle = cluster.handle();
    let first = handle.status().expect("there before it runs");
    assert_eq!((first.workers.len(), first.master.state, first.master.ready), (0, "running", false));
    assert!(!first.listeners[0].address.ends_with(":0"), "the real port");
    let early = handle.restart().expect("queued");
    assert!(early.wait(Duration::ZERO).unwrap_err().is_timeout());
    let running = Running::start(cluster);
    assert_eq!(early.wait(Duration::from_secs(30)).expect("in time"), RestartOutcome::Completed);
    assert!(early.wait(Duration::from_secs(30)).unwrap_err().is_ended(), "told once");
    running.wait_ready();
    std::fs::write("fail", "").expect("a file");
    let RestartOutcome::Aborted { reason, failed, .. } =
        handle.restart().expect("taken").wait(Duration::from_secs(30)).expect("in time")
    else {
        panic!("nothing can have replaced anything")
    };
    assert!(reason.contains("died before it was ready: exit status 101"), "{reason}");
    let failed = failed.expect("the worker that failed");
    assert_eq!((failed.cause, failed.code), ("boot-failed", Some(101)));
    std::fs::remove_file("fail").expect("the file");
    running.wait_ready();
    handle.scale(3).expect("taken");
    running.look(|status| (status.workers.len(), status.master.workers) == (3, 3));
    for workers in [0, 4097] {
        assert!(handle.scale(workers).unwrap_err().is_setting(), "{workers}");
    }
    handle.scale(2).expect("taken");
    running.wait_ready();
    let overtaken = handle.restart().expect("taken");
    let hammers: Vec<_> = (0..4).map(|_| thread::spawn(hammer(&handle))).collect();
    handle.shutdown().expect("taken");
    let outcome = overtaken.wait(Duration::from_secs(30)).expect("in time");
    let by_shutdown = |reason: &str, failed: Option<&ExitRecord>| reason == "shutdown" && failed.is_none();
    assert!(
        matches!(&outcome, RestartOutcome::Aborted { reason, failed, .. } if by_shutdown(reason, failed.as_ref())),
        "{outcome:?}"
    );
    running.end(Exit::Graceful);
    for hammer in hammers {
        hammer.join().expect("every order after the end is an error");
    }
    for error in [
        handle.restart().unwrap_err(),
        handle.shutdown().unwrap_err(),
        handle.force_shutdown().unwrap_err(),
        handle.scale(1).unwrap_err(),
    ] {
        assert!(error.is_ended(), "{error}");
    }
}

/// Gives orders until the cluster has ended; each comes back.
fn hammer(handle: &Handle) -> impl FnOnce() + Send + 'static {
    let handle = handle.clone();
    move || {
        loop {
            let (restart, look) = (handle.restart(), handle.status());
            match (restart.and_then(|restart| restart.wait(Duration::from_secs(30))), look) {
                (Err(error), Err(look)) if error.is_ended() && look.is_ended() => return,
                (Ok(RestartOutcome::Aborted { reason, .. }), _) => assert_eq!(reason, "shutdown"),
                (Ok(outcome), _) => panic!("{outcome:?} during a shutdown"),
                (Err(error), _) => assert!(error.is_ended(), "{error}"),
            }
        }
    }
}

/// Panics all around the cluster.
fn panics() {
    let running = Running::start(cluster());
    let workers = running.wait_ready();
    for number in 0..20 {
        let handle = running.handle.clone();
        let panicked = thread::spawn(move || {
            let _status = handle.status().expect("an answer");
            let _pending = (number % 2 == 0).then(|| handle.restart());
            panic!("number {number}");
        });
        assert!(panicked.join().is_err());
    }
    running.look(|status| status.restart.as_ref().is_some_and(|restart| restart.state == "completed"));
    eventually("no restart any more", || {
        running.handle.status().ok().filter(|status| status.master.state == "running" && is_ready(status))
    });
    assert!(running.wait_ready().iter().all(|pid| !workers.contains(pid)));
    running.stop();
}

/// With `handle_signals(false)` every signal stays the host's.
fn own_signals() {
    let signals = [libc::SIGUSR2, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];
    for signal in signals {
        sys::count(signal);
    }
    let before = Traces::now();
    let config = config().handle_signals(false).build().expect("good settings");
    let running = Running::start(Cluster::new(config).expect("a cluster"));
    let workers = running.wait_ready();
    assert_eq!(Traces::now().signals, before.signals);
    for signal in signals {
        sys::kill(std::process::id(), signal);
        wait_until("ours", || sys::counted(signal) == 1);
    }
    let restart = running.handle.restart().expect("taken").wait(Duration::from_secs(30));
    assert_eq!(restart.expect("in time"), RestartOutcome::Completed);
    let status = running.look(is_ready);
    assert_eq!(status.restart.expect("ours").id, 1, "the signals were no orders");
    assert!(running.wait_ready().iter().all(|pid| !workers.contains(pid)));
    running.handle.force_shutdown().expect("taken");
    running.end(Exit::Forced);
    before.wait_for();
}
