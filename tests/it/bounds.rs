//! What others can make the master hold: each row of the tables in `docs/bounds.md`, sent far beyond its bound to a
//! real master, whose cost stays below the figures of the row.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::master::{role_command, role_settings, shell_workers};
use crate::harness::{Master, Scene, eventually, pause, proc, record};

/// A row of the docs: what is sent, and what it may cost.
struct Row {
    /// As the docs name it.
    name: &'static str,
    /// MiB by which the master may grow.
    memory: u64,
    /// Descriptors that it may have open more than before.
    descriptors: usize,
    /// Whether the log has a line or two about it a second, or the very lines that are sent.
    log: Log,
    /// Sends it.
    probe: Probe,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Throttled,
    Itself,
}

/// Who sends it.
enum Probe {
    /// A worker that plays this part of `roles/bounds.rs`.
    Worker(&'static str),
    /// The same, taken for a Node worker.
    NodeWorker(&'static str),
    /// The same, of a program that has the cluster in it, and hears one message for ever.
    Embedded(&'static str),
    /// Somebody else, to a master whose workers are these.
    Caller(&'static str, fn(&Master)),
}

use Log::{Itself, Throttled};
use Probe::{Caller, Embedded, NodeWorker, Worker};

/// A `/status` that takes longer is no answer of a master that goes on with its work: half of all take less.
const SOON: Duration = Duration::from_millis(500);

#[rustfmt::skip]
const WORKERS: &[Row] = &[
    Row { name: "a line on the channel", memory: 12, descriptors: 0, log: Throttled, probe: Worker("line") },
    Row { name: "messages that nobody listens to", memory: 4, descriptors: 0, log: Throttled, probe: Worker("messages") },
    Row { name: "many values in a line of `PROTEUS_…`", memory: 24, descriptors: 0, log: Throttled, probe: Worker("reserved") },
    Row { name: "messages for a listener that stands still", memory: 24, descriptors: 0, log: Throttled, probe: Embedded("heard") },
    Row { name: "`PROTEUS_LISTEN`, many addresses", memory: 4, descriptors: 64, log: Throttled, probe: Worker("addresses") },
    Row { name: "`PROTEUS_LISTEN`, answers unread", memory: 4, descriptors: 1, log: Throttled, probe: Worker("listen") },
    Row { name: "`PROTEUS_LISTEN`, long addresses", memory: 24, descriptors: 0, log: Throttled, probe: Worker("long address") },
    Row { name: "`PROTEUS_ANSWERS`", memory: 24, descriptors: 0, log: Throttled, probe: Worker("answers") },
    Row { name: "`PROTEUS_FAILED`", memory: 24, descriptors: 0, log: Throttled, probe: Worker("failed") },
    Row { name: "`PROTEUS_PANICKED`", memory: 4, descriptors: 0, log: Throttled, probe: Worker("panicked") },
    Row { name: "`PROTEUS_RESTART_ME`", memory: 4, descriptors: 0, log: Throttled, probe: Worker("restart me") },
    Row { name: "`PROTEUS_LOG`", memory: 16, descriptors: 0, log: Itself, probe: Worker("log") },
    Row { name: "`PROTEUS_LOG`, key-values", memory: 24, descriptors: 0, log: Itself, probe: Worker("log values") },
    Row { name: "Node's `queryServer` and `close`", memory: 4, descriptors: 1, log: Throttled, probe: NodeWorker("handles") },
    Row { name: "Node's `queryServer`, much data", memory: 24, descriptors: 0, log: Throttled, probe: NodeWorker("node data") },
    Row { name: "`STATUS=`", memory: 4, descriptors: 0, log: Throttled, probe: Worker("status") },
    Row { name: "descriptors by sd_notify", memory: 4, descriptors: 253, log: Throttled, probe: Worker("descriptors") },
    Row { name: "`EXTEND_TIMEOUT_USEC=`", memory: 4, descriptors: 0, log: Throttled, probe: Worker("extend") },
    Row { name: "stdout and stderr", memory: 16, descriptors: 0, log: Itself, probe: Worker("stdout") },
    Row { name: "a line on stdout or stderr", memory: 16, descriptors: 0, log: Itself, probe: Worker("stdout line") },
];

#[rustfmt::skip]
const CALLERS: &[Row] = &[
    Row { name: "a header", memory: 4, descriptors: 64, log: Throttled, probe: Caller("idle", headers) },
    Row { name: "a body", memory: 8, descriptors: 64, log: Itself, probe: Caller("idle", bodies) },
    Row { name: "callers at once, silent ones", memory: 4, descriptors: 64, log: Throttled, probe: Caller("idle", silent) },
    Row { name: "callers at once, answered", memory: 8, descriptors: 96, log: Throttled, probe: Caller("idle", answered) },
    Row { name: "callers who wait", memory: 8, descriptors: 64, log: Itself, probe: Caller("idle", waiters) },
    Row { name: "answers that are not read", memory: 80, descriptors: 64, log: Itself, probe: Caller("parrot", unread) },
    Row { name: "orders", memory: 4, descriptors: 64, log: Itself, probe: Caller("idle", orders) },
    Row { name: "messages to a worker that does not read", memory: 12, descriptors: 64, log: Itself, probe: Caller("idle", messages) },
];

#[rustfmt::skip]
const HOST: &[Row] = &[
    Row { name: "signals", memory: 4, descriptors: 0, log: Itself, probe: Caller("idle", signals) },
];

/// Callers of the API come and go while a probe runs, the test's own among them.
const OWN_CALLS: usize = 8;

#[test]
fn what_a_worker_sends_costs_no_more_than_the_table_says() {
    walk(WORKERS);
}

#[test]
fn what_a_caller_sends_costs_no_more_than_the_table_says() {
    walk(CALLERS);
}

#[test]
fn what_the_host_sends_costs_no_more_than_the_table_says() {
    walk(HOST);
}

/// As many at a time as there are processors to be had.
fn walk(rows: &[Row]) {
    std::thread::scope(|scope| {
        for part in rows.chunks(rows.len().div_ceil(3)) {
            scope.spawn(|| part.iter().for_each(Row::check));
        }
    });
}

impl Row {
    fn check(&self) {
        let cost = match self.probe {
            Worker(what) => by_worker(what, "worker"),
            NodeWorker(what) => by_worker(what, "node"),
            Embedded(what) => in_a_host(what),
            Caller(workers, call) => by_caller(self.name, workers, call),
        };
        record("bounds", format_args!("{}: {cost:?}", self.name));
        let name = self.name;
        assert!(cost.memory >> 20 < self.memory, "{name}: {cost:?}");
        assert!(cost.descriptors <= self.descriptors + OWN_CALLS, "{name}: {cost:?}");
        assert!(cost.look < SOON, "{name}: {cost:?}");
        match self.log {
            Throttled => {
                let most = 6 + 4 * (1 + cost.time.as_secs());
                assert!(cost.lines as u64 <= most, "{name}: {cost:?}");
            }
            Itself => {}
        }
    }

    /// As the docs have it.
    fn cells(&self) -> [String; 4] {
        let log = match self.log {
            Throttled => "a line a second",
            Itself => "itself",
        };
        [self.name.into(), format!("{} MiB", self.memory), self.descriptors.to_string(), log.into()]
    }
}

#[test]
fn the_docs_have_the_same_rows() {
    let docs = include_str!("../../docs/bounds.md");
    let mut written: Vec<[String; 4]> = docs.lines().filter_map(cells).collect();
    let mut known: Vec<[String; 4]> =
        [WORKERS, CALLERS, HOST].iter().copied().flatten().map(Row::cells).collect();
    written.sort();
    known.sort();
    assert_eq!(written, known);
}

/// Of a row: the first cell, and the three of its cost.
fn cells(line: &str) -> Option<[String; 4]> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let [name, _bound, _beyond, memory, descriptors, log] = cells[..] else { return None };
    memory.ends_with("MiB").then(|| [name, memory, descriptors, log].map(str::to_owned))
}

/// What a thing cost the master.
#[derive(Debug, Default)]
struct Cost {
    /// Bytes that it grew by, at its highest.
    memory: u64,
    /// Descriptors more than before, at the most.
    descriptors: usize,
    /// What `/status` took meanwhile, in the middle and at the longest.
    look: Duration,
    longest: Duration,
    /// Lines of the log, at the level debug, and how long they took.
    lines: usize,
    time: Duration,
}

impl Cost {
    /// Looks at the master until `done`.
    fn while_waiting(master: &Master, before: &Before, done: impl Fn() -> bool) -> Self {
        let (mut cost, mut looks, start) = (Cost::default(), Vec::new(), Instant::now());
        loop {
            let over = done();
            let began = Instant::now();
            master.status();
            looks.push(began.elapsed());
            let descriptors = proc::descriptors(master.pid()).saturating_sub(before.descriptors);
            cost.descriptors = cost.descriptors.max(descriptors);
            if over && looks.len() >= 5 {
                break;
            }
            pause();
        }
        looks.sort();
        (cost.look, cost.longest) = (looks[looks.len() / 2], looks[looks.len() - 1]);
        cost.memory = proc::peak(master.pid()).saturating_sub(before.memory);
        (cost.lines, cost.time) = (master.log_lines().len() - before.lines, start.elapsed());
        cost
    }
}

/// The master as it was.
struct Before {
    memory: u64,
    descriptors: usize,
    lines: usize,
}

impl Before {
    fn of(master: &Master) -> Self {
        master.status();
        Before {
            memory: proc::resident(master.pid()),
            descriptors: proc::descriptors(master.pid()),
            lines: master.log_lines().len(),
        }
    }
}

/// A worker that sends one thing without end. The name of a program says whose words it speaks.
fn by_worker(what: &str, program: &str) -> Cost {
    let scene = Scene::new(&format!("bounds-{}", what.replace(' ', "-")));
    let master = Master::run(&scene, &settings(&scene, what, program));
    master.wait_one_ready();
    let before = Before::of(&master);
    scene.write("go", "");
    let cost = Cost::while_waiting(&master, &before, || scene.path("sent").exists());
    master.stop(&scene);
    cost
}

fn settings(scene: &Scene, what: &str, program: &str) -> serde_json::Value {
    let exec = scene.path(program);
    std::os::unix::fs::symlink(std::env::current_exe().expect("the test binary"), &exec).expect("a link");
    let mut settings = role_settings(&format!("bounds:{what}"));
    settings["exec"] = json!(exec);
    settings["worker"] = json!(1);
    settings["listen"] = json!([]);
    settings["ready"] = json!("notify");
    settings["disconnectTimeout"] = json!(100);
    settings["backoff"] = json!({ "initial": 60000, "max": 60000 });
    settings
}

/// A program that has the cluster in it.
fn in_a_host(what: &str) -> Cost {
    let scene = Scene::new(&format!("bounds-host-{what}"));
    let master = Master::start(&scene, role_command(format!("bounds-host:{what}")));
    master.wait_one_ready();
    let before = Before::of(&master);
    scene.write("go", "");
    let cost = Cost::while_waiting(&master, &before, || scene.path("sent").exists());
    // Its listener would hold up its end.
    drop(master);
    scene.assert_nothing_left();
    cost
}

/// Somebody who is no worker.
fn by_caller(name: &str, workers: &str, call: fn(&Master)) -> Cost {
    let scene = Scene::new(&format!("bounds-{}", name.replace([' ', ','], "-")));
    let mut settings = match workers {
        "idle" => shell_workers(1, "exec sleep 1000"),
        role => role_settings(&format!("messages:{role}")),
    };
    settings["worker"] = json!(1);
    settings["listen"] = json!([]);
    settings["canary"] = json!(60_000);
    settings["disconnectTimeout"] = json!(100);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let before = Before::of(&master);
    let (done, calling) = (AtomicBool::new(false), &master);
    let cost = std::thread::scope(|scope| {
        scope.spawn(|| {
            call(calling);
            done.store(true, SeqCst);
        });
        Cost::while_waiting(&master, &before, || done.load(SeqCst))
    });
    master.stop(&scene);
    cost
}

/// So many calls that each begin like this, all open at a time. What they are answered is of no interest.
fn crowd(master: &Master, callers: usize, begin: &[u8], more: usize) -> Vec<UnixStream> {
    let piece = vec![b'x'; 64 << 10];
    let call = |_| {
        let mut stream = UnixStream::connect(master.api()).ok()?;
        stream.set_write_timeout(Some(Duration::from_millis(50))).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        let mut write = || {
            stream.write_all(begin)?;
            (0..more).try_for_each(|_| stream.write_all(&piece))
        };
        drop(write());
        Some(stream)
    };
    (0..callers).filter_map(call).collect()
}

fn headers(master: &Master) {
    crowd(master, 64, b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: ", 16);
}

fn bodies(master: &Master) {
    let head = |length| format!("POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    drop(crowd(master, 32, head(1_u64 << 40).as_bytes(), 16));
    // As much as is taken, and never its end.
    drop(crowd(master, 32, head(64 << 10).as_bytes(), 1));
}

fn silent(master: &Master) {
    let callers = crowd(master, 100, b"GET", 0);
    assert_eq!(master.ask("/health").status, 200, "one that says something has a place");
    drop(callers);
}

fn answered(master: &Master) {
    for _ in 0..4 {
        for mut caller in crowd(master, 64, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", 0) {
            drop(caller.read_to_end(&mut Vec::new()));
        }
    }
}

fn waiters(master: &Master) {
    let callers = crowd(master, 64, b"GET /restart?wait=1h HTTP/1.1\r\nHost: localhost\r\n\r\n", 0);
    let mut last = callers.last().expect("64");
    let mut answer = [0; 12];
    last.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 503", "the places are taken");
}

fn unread(master: &Master) {
    let line = json!({ "cmd": "x", "line": "{\"cmd\":\"x\",\"msg\":\"MUCH\"}" }).to_string();
    let length = line.len();
    let head =
        format!("POST /sync_send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{line}");
    let mut callers = Vec::new();
    for _ in 0..24 {
        // Its answer begins, and no more of it is read.
        for mut caller in crowd(master, 1, head.as_bytes(), 0) {
            drop(caller.read(&mut [0]));
            callers.push(caller);
        }
    }
}

fn orders(master: &Master) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| assert_eq!(master.ask("/scale?worker=1").status, 200)));
        }
    });
}

fn messages(master: &Master) {
    let body = json!("x".repeat(60_000)).to_string();
    (0..400).for_each(|_| drop(master.post("/send", &body)));
}

fn signals(master: &Master) {
    for _ in 0..10_000 {
        for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD] {
            master.signal(signal);
        }
    }
}

#[test]
fn why_a_worker_ends_is_cut_to_what_people_read() {
    let scene = Scene::new("cut-reason");
    let master = Master::run(&scene, &settings(&scene, "failed", "worker"));
    master.wait_one_ready();
    scene.write("go", "");
    let status = master.wait_status("its end", |status| status["forks"]["crashes"].as_u64() >= Some(1));
    let reason = status["workers"][0]["lastExit"]["reason"].as_str().expect("its words").to_owned();
    assert_eq!(reason, "x".repeat(8 << 10) + "…");
    let line = master.wait_log("worker 1 (slot 0)");
    assert!(line.len() < 9 << 10, "{}", line.len());
    master.stop(&scene);
}

#[test]
fn what_a_worker_makes_the_master_hold_stands_in_its_row_and_is_given_back() {
    let scene = Scene::new("held");
    let master = Master::run(&scene, &settings(&scene, "answers read later", "worker"));
    master.wait_one_ready();
    scene.write("go", "");
    let row = || master.status()["workers"][0].clone();
    eventually("answers wait", || (row()["heldBytes"].as_u64() >= Some(256 << 10)).then_some(()));
    scene.write("read", "");
    eventually("all is read, and all were answered", || scene.path("read to the end").exists().then_some(()));
    eventually("all is given back", || (row()["heldBytes"] == 0).then_some(()));
    master.stop(&scene);
}
