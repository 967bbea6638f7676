//! What the cluster costs, against the least that the same work can cost: `scripts/bench`.
//!
//! Every comparison alternates between the two within one run and takes medians, since machines are noisy.

mod crash;
mod idle;
mod log;
mod messages;
mod node;
mod process;
mod requests;
mod restart;
mod roles;
mod stage;

use std::time::Duration;

fn main() {
    if roles::play() {
        return;
    }
    let (mut wanted, mut is_bench) = (Vec::new(), false);
    for word in std::env::args().skip(1) {
        if word == "--bench" { is_bench = true } else { wanted.push(word) }
    }
    // `cargo test --benches` runs this too, and has no use for it.
    if !is_bench {
        return;
    }
    println!("{:<58} {:>12} {:>12} {:>7}  bar", "", "cluster", "bare", "ratio");
    for (name, measure) in MEASUREMENTS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
}

/// Each by the word that asks for it alone.
const MEASUREMENTS: [(&str, fn()); 10] = [
    ("crash", crash::replacement),
    ("heap", crash::beside_a_heap),
    ("requests", requests::per_second),
    ("restart", restart::duration),
    ("latency", restart::latency),
    ("messages", messages::one_way),
    ("ping-pong", messages::there_and_back),
    ("log", log::lines_per_second),
    ("idle", idle::master),
    ("node", node::cluster),
];

/// A row of the table: less is better.
fn row(what: &str, cluster: Duration, bare: Duration, bar: &str) {
    let ratio = cluster.as_secs_f64() / bare.as_secs_f64();
    let micros = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    println!("{what:<58} {:>12} {:>12} {ratio:>7.3}  {bar}", micros(cluster), micros(bare));
}

/// The middle value; of an even number, the upper of the two.
fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN among measurements"));
    values[values.len() / 2]
}
