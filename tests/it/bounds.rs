//! What others can make the master hold: each row of the tables in `docs/bounds.md`, sent far beyond its bound to a
//! real master, whose cost stays below the figures of the row.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::master::role_settings;
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
}

use Log::{Itself, Throttled};
use Probe::{NodeWorker, Worker};

/// A `/status` that takes longer is no answer of a master that goes on with its work: half of all take less.
const SOON: Duration = Duration::from_millis(500);

#[rustfmt::skip]
const WORKERS: &[Row] = &[
    Row { name: "a line on the channel", memory: 12, descriptors: 0, log: Throttled, probe: Worker("line") },
    Row { name: "messages", memory: 12, descriptors: 0, log: Throttled, probe: Worker("messages") },
    Row { name: "many values in a line of `PROTEUS_…`", memory: 24, descriptors: 0, log: Throttled, probe: Worker("reserved") },
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

/// Callers of the API come and go while a probe runs, the test's own among them.
const CALLERS: usize = 8;

#[test]
fn what_a_worker_sends_costs_no_more_than_the_table_says() {
    walk(WORKERS);
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
        };
        record("bounds", format_args!("{}: {cost:?}", self.name));
        let name = self.name;
        assert!(cost.memory >> 20 < self.memory, "{name}: {cost:?}");
        assert!(cost.descriptors <= self.descriptors + CALLERS, "{name}: {cost:?}");
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
    let mut known: Vec<[String; 4]> = WORKERS.iter().map(Row::cells).collect();
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

#[test]
fn why_a_worker_ends_is_cut_to_what_people_read() {
    let scene = Scene::new("cut-reason");
    let master = Master::run(&scene, &settings(&scene, "failed", "worker"));
    master.wait_one_ready();
    scene.write("go", "");
    let status = master.wait_status("its end", |status| status["forks"]["crashes"] == 1);
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
