//! How long a rolling restart takes, and what those who are served notice of it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::requests::{free_address, request};
use crate::stage::{Running, Stage};
use crate::{median, row};

/// Short, so that the boots weigh something beside it.
const CANARY: Duration = Duration::from_millis(100);
const SURGE: usize = 1;
const ROUNDS: usize = 21;
const CLIENTS: usize = 4;

/// A restart of so many workers, against its canary's time and as many boots of such a worker by hand, until it
/// says ready, one after the other.
pub(crate) fn duration() {
    for workers in [2, 8, 32] {
        let site = Site::open("boots", workers);
        let (mut whole, mut least) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            site.restart();
            whole.push(began.elapsed());
            let boots = u32::try_from(workers.div_ceil(SURGE)).expect("few");
            least.push(CANARY + site.boot_by_hand() * boots);
        }
        let what = format!("a restart of {workers} workers; bare: canary and boots");
        row(&what, median(&mut whole), median(&mut least), "<= 1.15");
    }
}

/// The slowest request while a restart of 8 workers runs, against as long without one.
pub(crate) fn latency() {
    let site = Site::open("silent", 8);
    let (mut busy, mut quiet) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (slowest, took) = site.slowest_while(|| site.restart());
        busy.push(slowest);
        quiet.push(site.slowest_while(|| std::thread::sleep(took)).0);
    }
    row("the slowest request during a restart; bare: without", median(&mut busy), median(&mut quiet), "");
}

/// A cluster that serves.
struct Site {
    stage: Stage,
    at: SocketAddr,
    _master: Running,
}

impl Site {
    fn open(role: &str, workers: usize) -> Self {
        let (stage, at) = (Stage::new(role), free_address());
        let settings = json!({
            "listen": { "name": "http", "address": at.to_string() },
            "api": { "listen": format!("unix:{}", stage.path("api.sock").display()) },
            "canary": u64::try_from(CANARY.as_millis()).expect("short"),
            "surge": SURGE,
            "minReady": workers,
        });
        // They report nothing: nobody would read it meanwhile.
        let master = stage.cluster(role, workers, &settings);
        let site = Site { stage, at, _master: master };
        while !site.ask("/ready").is_ok_and(|answer| answer.contains("200 OK")) {
            std::thread::yield_now();
        }
        site
    }

    /// Asks for a restart and waits for its verdict.
    fn restart(&self) {
        let answer = self.ask("/restart?wait=60s").expect("a verdict");
        assert!(answer.contains("completed"), "{answer}");
    }

    fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut api = UnixStream::connect(self.stage.path("api.sock"))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        api.write_all(request.as_bytes())?;
        let mut answer = String::new();
        api.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The middle of some boots of the same worker by nobody but this program.
    fn boot_by_hand(&self) -> Duration {
        median(&mut (0..9).map(|_| self.boot()).collect::<Vec<_>>())
    }

    fn boot(&self) -> Duration {
        let began = Instant::now();
        let (mut channel, theirs) = UnixStream::pair().expect("a channel");
        let mut command = self.stage.command("boots");
        command.stdin(OwnedFd::from(theirs)).env("PROTEUS_CHANNEL_FD", "0");
        for key in ["PROTEUS_WORKER_ID", "PROTEUS_SLOT", "PROTEUS_GENERATION"] {
            command.env(key, "1");
        }
        let child = Running(command.spawn().expect("it starts"));
        let (mut said, mut buffer) = (String::new(), [0; 256]);
        while !said.contains("PROTEUS_READY") {
            let count = channel.read(&mut buffer).expect("it speaks");
            said += &String::from_utf8_lossy(&buffer[..count]);
        }
        let took = began.elapsed();
        drop(child);
        took
    }

    /// The slowest request of a closed loop of clients while something is done, and how long that took.
    fn slowest_while(&self, work: impl FnOnce()) -> (Duration, Duration) {
        let over = std::sync::atomic::AtomicBool::new(false);
        let client = || {
            let mut slowest = Duration::ZERO;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let began = Instant::now();
                request(self.at);
                slowest = slowest.max(began.elapsed());
            }
            slowest
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let began = Instant::now();
            work();
            let took = began.elapsed();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            let slowest = clients.into_iter().map(|client| client.join().expect("no panic")).max();
            (slowest.expect("some"), took)
        })
    }
}
