//! The programs that are measured: this one, started again for a role.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use proteus_cluster::{Cluster, Config, Ready, Worker};

use crate::log;
use crate::messages;
use crate::stage::{LOG, REPORT, ROLE};

/// Plays the role that the environment names, if any.
pub(crate) fn play() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    match role.split_once(':').unwrap_or((&role, "")) {
        ("begins", _) => begins(),
        ("service", _) => service(report),
        ("silent", _) => service(|| ()),
        ("boots", _) => boots(),
        ("prefork", _) => prefork(),
        (what @ ("one-way" | "ping-pong"), _) => messages::play(what),
        ("echo", _) => messages::echo(),
        ("logs", _) => logs(),
        ("logs-bare", _) => logs_bare(),
        ("master", heap) => master(heap.parse().expect("MiB")),
        _ => panic!("unknown role {role}"),
    }
    true
}

fn report() {
    let socket = UnixDatagram::unbound().expect("a socket");
    let address = std::env::var(REPORT).expect("an address");
    // Whoever measures may have ended.
    drop(socket.send_to(&std::process::id().to_ne_bytes(), address));
}

/// Says that it has begun, and does nothing else.
fn begins() {
    report();
    std::thread::park();
}

/// The library's way; `begun` once it is ready.
fn service(begun: fn()) {
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    let listener = worker.listener("http").expect("the listener");
    worker.ready().expect("told the master");
    begun();
    for stream in worker.incoming(&listener) {
        drop(respond(stream));
    }
}

/// A worker that is ready and has nothing else to do.
fn boots() {
    let worker = Worker::from_env().expect("a worker").expect("started by whoever holds its channel");
    worker.ready().expect("told");
    worker.wait_for_disconnect();
}

/// A worker that logs.
fn logs() {
    proteus_cluster::logger::init();
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    worker.ready().expect("told the master");
    report();
    log::write();
    report();
    worker.wait_for_disconnect();
}

/// A process that writes its log by itself.
fn logs_bare() {
    let path = std::env::var(LOG).expect("a path");
    let file = std::fs::File::create(path).expect("a file");
    let target = env_logger::Target::Pipe(Box::new(file));
    env_logger::Builder::new().filter_level(::log::LevelFilter::Info).target(target).init();
    report();
    log::write();
    report();
    std::thread::park();
}

/// The bare way: a listener shared by inheritance, and a blocking accept.
fn prefork() {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor"));
    report();
    for stream in listener.incoming().flatten() {
        drop(respond(stream));
    }
}

/// One request, one answer, the same for both.
fn respond(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    let mut length = 0;
    while !buffer[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer[length..])? {
            0 => return Ok(()),
            count => length += count,
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
}

/// A program that embeds a cluster beside a heap of its own.
fn master(heap: usize) {
    let heap = vec![1u8; heap << 20];
    let config = Config::builder()
        .workers(1)
        .exec(std::env::current_exe().expect("this program"))
        .env(ROLE, "begins")
        .ready(Ready::Alive)
        .min_uptime(Duration::ZERO)
        .max_fork_count(u32::MAX)
        .build()
        .expect("good settings");
    Cluster::new(config).expect("a cluster").run().expect("it runs").code();
    std::hint::black_box(heap);
}
