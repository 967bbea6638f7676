#!/usr/bin/env bash
# signal-hook 0.4.6 (signal-hook-registry 1.4.8) and tokio 1.48.0: once a signal's disposition has been set back to
# its default, a later registration succeeds and installs nothing.
#
# Guess before the run: `register` looks at the disposition and puts its handler in place, so a program that takes a
# signal, gives it back with SIG_DFL, and takes it again later is heard again.
# Seen: the registry installs its handler once in the life of the process, at the first registration for a signal,
# and remembers that alone. After SIG_DFL the second registration answers Ok, the handler is not in place, and
# tokio's signal stream, which goes by the same registry, is as deaf. A library that gives signals back by SIG_DFL
# so takes later handlers of the whole program away.
#
# Output seen (Linux 6.18, rustc 1.95):
#   first registration: Ok, caught: true
#   after SIG_DFL: caught: false
#   second registration: Ok, caught: false
#   tokio's stream: Ok, caught: false
#   a signal never registered before: Ok, caught: true
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "look"
version = "0.0.0"
edition = "2021"
[dependencies]
libc = "=0.2.177"
signal-hook = { version = "=0.4.6", default-features = false }
signal-hook-registry = "=1.4.8"
tokio = { version = "=1.48.0", features = ["rt", "signal"] }
TOML
cat >src/main.rs <<'RUST'
use std::sync::{atomic::AtomicBool, Arc};

fn caught(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & 1 << (signal - 1) != 0
}

fn word<T, E>(result: &Result<T, E>) -> &'static str {
    if result.is_ok() { "Ok" } else { "Err" }
}

fn main() {
    let flag = || Arc::new(AtomicBool::new(false));
    let first = signal_hook::flag::register(libc::SIGUSR1, flag());
    println!("first registration: {}, caught: {}", word(&first), caught(libc::SIGUSR1));
    signal_hook::low_level::unregister(first.unwrap());
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_DFL) };
    println!("after SIG_DFL: caught: {}", caught(libc::SIGUSR1));
    let second = signal_hook::flag::register(libc::SIGUSR1, flag());
    println!("second registration: {}, caught: {}", word(&second), caught(libc::SIGUSR1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let stream = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1());
    println!("tokio's stream: {}, caught: {}", word(&stream), caught(libc::SIGUSR1));
    let other = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined2());
    println!("a signal never registered before: {}, caught: {}", word(&other), caught(libc::SIGUSR2));
}
RUST
cargo build --quiet
./target/debug/look | tee seen
diff seen - <<'SEEN'
first registration: Ok, caught: true
after SIG_DFL: caught: false
second registration: Ok, caught: false
tokio's stream: Ok, caught: false
a signal never registered before: Ok, caught: true
SEEN
echo "as found"
