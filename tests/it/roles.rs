//! The programs that the tests run: the test binary, started again with `PROTEUS_TEST_ROLE`.

mod bounds;
mod closure;
pub(crate) mod floods;
mod guest;
mod load;
mod logs;
mod manners;
mod messages;
mod node;
mod signals;
mod sockets;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use proteus_cluster::Worker;

use crate::harness::sys;

/// Not a test of its own: does nothing unless a test started this process for a role.
#[test]
fn play() {
    let Ok(role) = std::env::var("PROTEUS_TEST_ROLE") else { return };
    let (name, argument) = role.split_once(':').unwrap_or((&role, ""));
    let status = match name {
        "service" => service(),
        "messages" => messages::play(split(argument).0, split(argument).1),
        "floods" => floods::play(split(argument).0, split(argument).1),
        "bounds" => bounds::play(argument),
        "bounds-host" => bounds::host(argument),
        "foreign" => foreign(),
        "forges" => manners::forges(),
        "page" => sockets::page(),
        "sockets" => sockets::all_kinds(),
        "nodelay" => sockets::nodelay(),
        "in-hand" => sockets::in_hand(argument),
        "shuts" => sockets::shuts(),
        "late" => sockets::late(),
        "asks" => sockets::asks(),
        "activate" => sockets::activate(),
        "stubborn" => manners::stubborn(),
        "speaker" => manners::speaker(argument),
        "brief-word" => {
            notify("READY=1");
            5
        }
        "node" => node::play(argument),
        "says-ready" => manners::says_ready(),
        "member-says-ready" => manners::member_says_ready(argument),
        "plain" => load::plain(argument),
        "threads" => load::threads(),
        "drains" => load::drains(),
        "gated" => load::gated(argument),
        "deaf" => load::deaf(),
        "beats" => manners::beats(argument),
        "grows" => manners::grows(),
        "brief" => load::brief(argument),
        "mute" => load::mute(),
        "logs" => logs::play(argument),
        "signals" => signals::play(argument),
        "urgent" => signals::urgent(),
        "exits" => argument.parse().expect("a status"),
        _ => guest::play(name, argument),
    };
    std::process::exit(status);
}

/// `name:argument`.
fn split(role: &str) -> (&str, &str) {
    role.split_once(':').unwrap_or((role, ""))
}

/// A worker by this crate: HTTP on the listener `http`.
fn service() -> i32 {
    let worker = Worker::from_env().expect("a worker").expect("started by a master");
    let listener = worker.listener("http").expect("the listener");
    worker.ready().expect("told the master");
    for stream in worker.incoming(&listener) {
        drop(serve(&stream));
    }
    0
}

/// A worker in no way ours: `LISTEN_FDS` and `sd_notify` alone, SIGTERM ends it.
fn foreign() -> i32 {
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    let listener = TcpListener::from(sys::inherited(3));
    notify("READY=1");
    for stream in listener.incoming().flatten() {
        drop(serve(&stream));
    }
    0
}

/// A line on stderr, which is the master's log: in one piece, since other workers write there too.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("stderr");
}

/// `sd_notify` as any program does it.
pub(crate) fn notify(message: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    notify_at(&name, message);
}

/// The same at any such socket.
pub(crate) fn notify_at(name: &str, message: &str) {
    let socket = UnixDatagram::unbound().expect("a socket");
    let address = SocketAddr::from_abstract_name(name.trim_start_matches('@')).expect("an address");
    socket.send_to_addr(message.as_bytes(), &address).expect("sent");
}

fn serve(stream: &TcpStream) -> std::io::Result<()> {
    serve_until(stream, || false)
}

/// As [`converse`], for a client that may fall silent. Once `leaving`, an answer says that it is the last.
fn serve_until(stream: &TcpStream, leaving: impl Fn() -> bool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    converse(stream, leaving)
}

/// HTTP with keep-alive: `/` says the pid, `/slow` says it after a second, `/args` says the arguments.
fn converse<S>(mut stream: &S, leaving: impl Fn() -> bool) -> std::io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    let mut reader = BufReader::new(stream);
    while let Some((path, keep)) = read_request(&mut reader)? {
        if path == "/slow" {
            say(&format!("pid {} works on a slow request", std::process::id()));
            std::thread::sleep(Duration::from_secs(1)); // the work of a slow request
        }
        let body = match path.as_str() {
            "/args" => std::env::var("PROTEUS_TEST_ARGS").unwrap_or_default(),
            _ => format!("pid={}\n", std::process::id()),
        };
        let keep = keep && !leaving();
        respond(&mut stream, keep, &body)?;
        if !keep {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<impl Read>) -> std::io::Result<Option<(String, bool)>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.to_ascii_lowercase());
    }
    let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
    let keep = !lines.iter().any(|line| line.trim_end() == "connection: close");
    Ok(Some((path, keep)))
}

fn respond(stream: &mut impl Write, keep: bool, body: &str) -> std::io::Result<()> {
    let connection = if keep { "keep-alive" } else { "close" };
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())
}
