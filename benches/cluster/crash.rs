//! How long a killed worker's seat stays empty: until the first line of its replacement's `main`.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stage::{Running, Stage};
use crate::{median, process, row};

const ROUNDS: usize = 300;

/// `kill -9` to the replacement's beginning, against a bare kill, reap, spawn of the same program.
pub(crate) fn replacement() {
    let (stage, bare_stage) = (Stage::new("crash"), Stage::new("crash-bare"));
    let settings = json!({ "ready": "alive", "minUptime": 0, "maxForkCount": u32::MAX });
    let _master = stage.cluster("begins", 1, &settings);
    let mut pid = stage.report();
    let mut child = Running(bare_stage.command("begins").spawn().expect("it starts"));
    bare_stage.report();
    let (mut cluster, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cluster.push(replaced_by_master(&stage, &mut pid));
        bare.push(replaced_by_hand(&bare_stage, &mut child.0));
    }
    row("kill -9 to the replacement's main", median(&mut cluster), median(&mut bare), "<= 1.5");
}

fn replaced_by_master(stage: &Stage, pid: &mut u32) -> Duration {
    let began = Instant::now();
    process::kill(*pid);
    *pid = stage.report();
    began.elapsed()
}

fn replaced_by_hand(stage: &Stage, child: &mut Child) -> Duration {
    let began = Instant::now();
    child.kill().expect("it lives");
    child.wait().expect("it is ours");
    *child = stage.command("begins").spawn().expect("it starts");
    stage.report();
    began.elapsed()
}

/// The same in a program that embeds the master beside 1 GiB of its own, against one without.
pub(crate) fn beside_a_heap() {
    let [(large, mut in_large), (small, mut in_small)] = ["1024", "0"].map(|heap| {
        let stage = Stage::new(&format!("heap-{heap}"));
        let running = Running(stage.command(&format!("master:{heap}")).spawn().expect("it starts"));
        let pid = stage.report();
        ((stage, running), pid)
    });
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with.push(replaced_by_master(&large.0, &mut in_large));
        without.push(replaced_by_master(&small.0, &mut in_small));
    }
    row("the same beside a heap of 1 GiB, against none", median(&mut with), median(&mut without), "");
}
