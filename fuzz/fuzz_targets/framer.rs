//! Any bytes on a worker's channel: `cargo +nightly fuzz run framer` (needs `cargo install cargo-fuzz`).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| proteus_cluster::property::holds_of(bytes));
