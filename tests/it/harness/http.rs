//! A small HTTP client: one request a connection, over TCP or a unix socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(20);

/// An answer: its status and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET path` from a TCP address.
pub(crate) fn try_get(address: &str, path: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    exchange(stream, &request("GET", path, ""))
}

/// The same, where anything but an answer is the end of the test.
#[track_caller]
pub(crate) fn get(address: &str, path: &str) -> Answer {
    try_get(address, path).unwrap_or_else(|error| panic!("GET {address}{path}: {error}"))
}

/// A request over a unix socket, with extra header lines (each ending in CRLF).
pub(crate) fn over_unix(socket: &Path, method: &str, path: &str, headers: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    exchange(stream, &request(method, path, headers))
}

/// POST with a body over a unix socket.
pub(crate) fn post_over_unix(socket: &Path, path: &str, body: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = format!("Content-Length: {}\r\n", body.len());
    exchange(stream, &(request("POST", path, &length) + body))
}

/// `method path` from a TCP address, with extra header lines.
pub(crate) fn over_tcp(address: &str, method: &str, path: &str, headers: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    exchange(stream, &request(method, path, headers))
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("no answer: {text:?}")))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if body.len() < length => None,
        _ => Some(Answer { status, body: body.to_owned() }),
    }
}
