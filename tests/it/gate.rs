//! Hostile callers of the control API: none of them hurts a worker, the master, or another caller for long.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::master::idle_settings;
use crate::harness::{Master, PATIENCE, Scene, eventually, proc, sample_or_full, skipped, sys, wait_until};

/// What the gate may add to what the master has open: its connections, each with its way to the server behind it.
const HELD: usize = 16 * 3;

struct Attack<'a> {
    scene: &'a Scene,
    master: Master,
    worker: u32,
    descriptors: usize,
}

impl<'a> Attack<'a> {
    /// A master with one worker and its API on a unix socket.
    fn begin(scene: &'a Scene) -> Self {
        let master = Master::run(scene, &idle_settings());
        let worker = master.wait_one_ready();
        let descriptors = proc::descriptors(master.pid());
        Attack { scene, master, worker, descriptors }
    }

    fn connect(&self) -> UnixStream {
        connect(self.master.api())
    }

    /// Sends this and returns all that comes back until the connection ends.
    fn answer(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // It may be refused, and closed, before it has read everything.
        drop(stream.write_all(bytes.as_ref()));
        rest(&mut stream)
    }

    /// Its first line's status; 0 where nothing came.
    fn status_of(&self, bytes: impl AsRef<[u8]>) -> u16 {
        let answer = self.answer(bytes);
        answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    #[track_caller]
    fn is_well(&self) -> Value {
        let status = self.master.status();
        assert_eq!(status["workers"][0]["pid"], self.worker, "{status}");
        assert_eq!(status["forks"]["crashes"], 0, "{status}");
        status
    }

    /// The worker is the same, no order was carried out, and nothing is held any more.
    #[track_caller]
    fn end(self) {
        let status = self.is_well();
        assert_eq!((&status["master"]["state"], &status["restart"]), (&json!("running"), &Value::Null));
        wait_until("the descriptors are given back", || {
            proc::descriptors(self.master.pid()) <= self.descriptors
        });
        assert!(!self.master.has_logged("panic"), "{}", self.master.log_text());
        self.master.stop(self.scene);
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the API's socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Everything until the connection ends, in whatever way.
fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

#[test]
fn who_says_nothing_or_half_a_request_holds_up_nobody() {
    let scene = Scene::new("gate-loris");
    let attack = Attack::begin(&scene);
    let half = ["", "G", "GET /restart HTTP/1.1\r\n", "GET /restart HTTP/1.1\r\nHost: localhost\r\nX: "];
    let body = request("POST /restart", "Content-Length: 100\r\n", "half");
    let mut stalled: Vec<UnixStream> = Vec::new();
    for said in half.into_iter().chain([body.as_str()]).cycle().take(60) {
        let mut stream = attack.connect();
        stream.write_all(said.as_bytes()).expect("room for a few bytes");
        stalled.push(stream);
        attack.is_well();
    }
    assert!(proc::descriptors(attack.master.pid()) <= attack.descriptors + HELD);
    for mut stream in stalled {
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 408 ") || answer.is_empty(), "{answer}");
    }
    attack.end();
}

#[test]
fn half_a_request_and_gone() {
    let scene = Scene::new("gate-half");
    let attack = Attack::begin(&scene);
    let whole = request("POST /restart", "Content-Length: 10\r\n", "123456789");
    for length in 0..sample_or_full(whole.len(), whole.len() * 20) {
        let mut stream = attack.connect();
        stream.write_all(&whole.as_bytes()[..length % whole.len()]).expect("room for a few bytes");
    }
    attack.end();
}

#[test]
fn bodies_that_are_not_what_they_say() {
    let scene = Scene::new("gate-body");
    let attack = Attack::begin(&scene);
    let long = "x".repeat(65_537);
    let table = [
        ("Content-Length: 18446744073709551615\r\n", "", 413),
        ("Content-Length: 9223372036854775807\r\n", "x", 413),
        ("Content-Length: 99999999999999999999999\r\n", "x", 413),
        ("Content-Length: 65537\r\n", &long, 413),
        ("Content-Length: -1\r\n", "", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", "xx", 400),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", "", 501),
        ("Transfer-Encoding: chunked\r\n", "fffffffffffffff\r\n", 413),
        ("Transfer-Encoding: chunked\r\n", "zz\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "1\r\nxyz", 400),
    ];
    for (headers, body, status) in table {
        for line in ["POST /restart", "POST /shutdown"] {
            assert_eq!(attack.status_of(request(line, headers, body)), status, "{line} {headers}");
        }
    }
    attack.end();
}

#[test]
fn what_is_no_request_of_ours_is_refused() {
    let scene = Scene::new("gate-nonsense");
    let attack = Attack::begin(&scene);
    let headers = "X: x\r\n".repeat(100);
    let table: [(&[u8], u16); 12] = [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /shutdown\r\n\r\n", 400),
        (b"GET /shutdown HTTP/1.1\r\n\r\n", 400),
        (b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost/shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /shut\x00down HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /shutdown HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n", 400),
        (b"TRACE /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"HEAD /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ];
    for (bytes, status) in table {
        assert_eq!(attack.status_of(bytes), status, "{}", String::from_utf8_lossy(bytes));
    }
    let long = format!("X: {}\r\n", "x".repeat(9000));
    for headers in [headers, long] {
        assert_eq!(attack.status_of(request("GET /shutdown", &headers, "")), 431);
    }
    attack.end();
}

#[test]
fn one_connection_is_one_request() {
    let scene = Scene::new("gate-smuggle");
    let attack = Attack::begin(&scene);
    let second = request("GET /shutdown", "", "");
    let firsts = [
        request("GET /health", "", ""),
        request("GET /health", "Connection: keep-alive\r\n", ""),
        request("POST /health", "Content-Length: 2\r\n", "OK"),
        request("POST /health", "Transfer-Encoding: chunked\r\n", "2\r\nOK\r\n0\r\n\r\n"),
    ];
    for first in firsts {
        let answer = attack.answer(first.clone() + &second);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"), "{first}\n{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{first}\n{answer}");
    }
    attack.end();
}

#[test]
fn patient_callers_are_served_whatever_their_pace() {
    let scene = Scene::new("gate-slow");
    let attack = Attack::begin(&scene);
    let health = request("GET /health", "", "");
    // Byte by byte.
    let mut stream = attack.connect();
    for byte in health.as_bytes() {
        stream.write_all(&[*byte]).expect("room for a byte");
    }
    assert!(rest(&mut stream).ends_with("\r\n\r\nOK"));
    // Nothing more to say, and still listening.
    let mut stream = attack.connect();
    stream.write_all(health.as_bytes()).expect("room");
    stream.shutdown(Shutdown::Write).expect("half of it");
    assert!(rest(&mut stream).ends_with("\r\n\r\nOK"));
    // Asked for the body first.
    let mut stream = attack.connect();
    let head = request("POST /health", "Expect: 100-continue\r\nContent-Length: 2\r\n", "");
    stream.write_all(head.as_bytes()).expect("room");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).expect("a word");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"OK").expect("room");
    assert!(rest(&mut stream).ends_with("\r\n\r\nOK"));
    attack.end();
}

#[test]
fn a_thousand_connections_at_once() {
    let scene = Scene::new("gate-thousand");
    let address = scene.address(8111);
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": address });
    let master = Master::run(&scene, &settings);
    master.wait_log("ready; API on");
    let descriptors = proc::descriptors(master.pid());
    let count = sample_or_full(200, 1000);
    // Those that find no room in the kernel's queue are still connecting: they are part of the storm.
    let crowd: Vec<_> = (0..count)
        .map(|_| {
            TcpStream::connect_timeout(&address.parse().expect("an address"), Duration::from_millis(200))
        })
        .collect();
    assert!(crowd.iter().filter(|stream| stream.is_ok()).count() > 16);
    wait_until("somebody else is answered", || {
        crate::harness::try_get(&address, "/health").is_ok_and(|answer| answer.body == "OK")
    });
    assert!(proc::descriptors(master.pid()) <= descriptors + HELD);
    drop(crowd);
    wait_until("all is given back", || proc::descriptors(master.pid()) <= descriptors);
    let status: Value = serde_json::from_str(&crate::harness::get(&address, "/status").body).expect("JSON");
    assert_eq!((&status["forks"]["crashes"], &status["workers"][0]["id"]), (&json!(0), &json!(1)));
    master.stop(&scene);
}

#[test]
fn without_descriptors_it_refuses_and_recovers() {
    let scene = Scene::new("gate-emfile");
    let attack = Attack::begin(&scene);
    let pid = attack.master.pid();
    for round in 0..sample_or_full(2, 20) {
        for spare in 0..6 {
            let open = proc::descriptors(pid) as u64;
            sys::limit_descriptors(pid, open + spare);
            let callers: Vec<_> = (0..4).map(|_| attack.connect()).collect();
            for mut caller in &callers {
                caller.write_all(request("GET /health", "", "").as_bytes()).expect("room");
                // Long enough for a refusal; where nothing can be accepted, nothing comes.
                caller.set_read_timeout(Some(Duration::from_millis(30))).expect("a time-out");
                drop(caller.read_to_end(&mut Vec::new()));
            }
            sys::limit_descriptors(pid, 4096);
            assert_eq!(attack.master.ask("/health").body, "OK", "round {round}, {spare} to spare");
            drop(callers);
            wait_until("all is given back", || proc::descriptors(pid) <= attack.descriptors);
        }
    }
    attack.end();
}

/// The master's descriptors for its private listening socket, which `/proc/net/unix` knows by a dead name.
fn private_listeners(pid: u32) -> Vec<u32> {
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("the kernel's list");
    let private = sockets.lines().filter(|line| line.contains("/proc/self/fd/") && line.ends_with("/api"));
    let inodes: Vec<String> =
        private.filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(6)?))).collect();
    let open = proc::open_files(pid).into_iter();
    open.filter(|(_, file)| inodes.contains(file)).map(|(number, _)| number).collect()
}

#[test]
fn a_server_that_is_lost_is_replaced_and_the_workers_never_notice() {
    let scene = Scene::new("gate-lost");
    let attack = Attack::begin(&scene);
    let pid = attack.master.pid();
    for round in 0..3 {
        // Connections go by the same name, until they have gone with their callers.
        let only = || private_listeners(pid).first().copied().filter(|_| private_listeners(pid).len() == 1);
        if let Err(error) = sys::shut_down_socket(pid, eventually("the one that listens", only)) {
            return skipped(
                "a_server_that_is_lost_is_replaced_and_the_workers_never_notice",
                &error.to_string(),
            );
        }
        // Also for several at once.
        let callers: Vec<_> = (0..5).map(|_| attack.connect()).collect();
        for mut caller in callers {
            caller.write_all(request("GET /health", "", "").as_bytes()).expect("room");
            assert!(rest(&mut caller).ends_with("\r\n\r\nOK"), "round {round}: {}", attack.master.log_text());
        }
        wait_until("its end is known", || attack.master.has_logged("its server is lost"));
    }
    wait_until("nobody is left of the lost ones", || private_listeners(pid).len() == 1);
    attack.end();
}

#[test]
fn a_name_of_somebody_elses_is_not_ours() {
    let scene = Scene::new("gate-host");
    let address = scene.address(8111);
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": address });
    let master = Master::run(&scene, &settings);
    master.wait_log("ready; API on");
    let hosts = [
        (address.as_str(), 200),
        ("localhost:8111", 200),
        ("[::1]:8111", 200),
        ("evil.example", 403),
        ("evil.example:8111", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1:8111", 403),
    ];
    for (host, status) in hosts {
        let mut stream = TcpStream::connect(&address).expect("the API");
        write!(stream, "GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("room");
        let answer = rest(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    master.stop(&scene);
}

#[test]
fn where_others_can_reach_it_a_browser_needs_the_token() {
    let scene = Scene::new("gate-open");
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": "0.0.0.0", "port": 0 });
    let master = Master::run(&scene, &settings);
    let line = master.wait_log("ready; API on 0.0.0.0:");
    let port = line.split("API on 0.0.0.0:").nth(1).and_then(|rest| rest.split(';').next()).expect("a port");
    let ask = |path: &str, headers: &str| {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("the API");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 10.1.2.3:{port}\r\n{headers}\r\n").expect("room");
        rest(&mut stream)
    };
    let browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n";
    assert!(ask("/restart", browser).starts_with("HTTP/1.1 403 "));
    assert!(ask("/status", browser).starts_with("HTTP/1.1 200 "));
    assert!(ask("/restart", "User-Agent: curl/8.5.0\r\n").starts_with("HTTP/1.1 200 "));
    master.stop(&scene);
}

/// Bytes that nobody chose, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).expect("small")
    }
}

#[test]
fn requests_with_bytes_that_nobody_chose() {
    let scene = Scene::new("gate-noise");
    let attack = Attack::begin(&scene);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let seeds = [
        request("GET /health?x=%20+", "User-Agent: x\r\nAccept: */*\r\n", ""),
        request("POST /health", "Content-Length: 5\r\n", "hello"),
        request("POST /health", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ];
    for _ in 0..sample_or_full(300, 30_000) {
        let mut bytes = seeds[noise.next(seeds.len())].clone().into_bytes();
        for _ in 0..=noise.next(4) {
            let at = noise.next(bytes.len());
            match noise.next(3) {
                0 => bytes[at] = u8::try_from(noise.next(256)).expect("a byte"),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, u8::try_from(noise.next(256)).expect("a byte")),
            }
        }
        let mut stream = attack.connect();
        stream.write_all(&bytes).expect("room");
        stream.shutdown(Shutdown::Write).expect("half of it");
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
    }
    attack.end();
}
