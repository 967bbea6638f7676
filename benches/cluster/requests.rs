//! Requests a second, each on a connection of its own: `incoming` against a bare prefork.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::median;
use crate::stage::{Running, Stage};

const WORKERS: usize = 4;
const CLIENTS: usize = 8;
/// Short, so that both of a pair meet the same weather.
const WINDOW: Duration = Duration::from_millis(60);
const ROUNDS: usize = 200;

pub(crate) fn per_second() {
    let (mut ours, mut bare) = (Server::cluster(), Server::prefork());
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        // Whoever comes second may find the machine warmer.
        if round % 2 == 0 {
            ours.measure();
            bare.measure();
        } else {
            bare.measure();
            ours.measure();
        }
        ratios.push(ours.rates[round] / bare.rates[round]);
    }
    let (rate, bare_rate, ratio) = (median(&mut ours.rates), median(&mut bare.rates), median(&mut ratios));
    println!("{:<58} {rate:>12.0} {bare_rate:>12.0} {ratio:>7.3}  >= 0.98", "requests a second, 4 workers");
}

/// Four workers of one kind, and what was measured of them.
struct Server {
    at: SocketAddr,
    rates: Vec<f64>,
    _stage: Stage,
    _running: Vec<Running>,
}

impl Server {
    fn cluster() -> Self {
        let (stage, at) = (Stage::new("requests"), free_address());
        let settings = json!({ "listen": { "name": "http", "address": at.to_string() } });
        let master = stage.cluster("service", WORKERS, &settings);
        Server::started(stage, at, vec![master])
    }

    fn prefork() -> Self {
        let stage = Stage::new("requests-bare");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let at = listener.local_addr().expect("an address");
        let start = |_| {
            let stdin = OwnedFd::from(listener.try_clone().expect("a descriptor"));
            Running(stage.command("prefork").stdin(Stdio::from(stdin)).spawn().expect("it starts"))
        };
        let running = (0..WORKERS).map(start).collect();
        Server::started(stage, at, running)
    }

    fn started(stage: Stage, at: SocketAddr, running: Vec<Running>) -> Self {
        for _ in 0..WORKERS {
            stage.report();
        }
        Server { at, rates: Vec::new(), _stage: stage, _running: running }
    }

    fn measure(&mut self) {
        self.rates.push(rate(self.at));
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address")
}

/// Requests a second by a closed loop of clients.
fn rate(address: SocketAddr) -> f64 {
    let began = Instant::now();
    let client = || {
        let mut count = 0u32;
        loop {
            request(address);
            count += 1;
            if began.elapsed() >= WINDOW {
                return count;
            }
        }
    };
    let count: u32 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).sum()
    });
    f64::from(count) / began.elapsed().as_secs_f64()
}

pub(crate) fn request(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    let mut answer = [0; 256];
    let mut length = 0;
    while let count @ 1.. = stream.read(&mut answer[length..]).expect("read") {
        length += count;
    }
    assert!(answer[..length].ends_with(b"ok\n"), "{}", String::from_utf8_lossy(&answer[..length]));
}
