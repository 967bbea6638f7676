//! A whole service in one file: `cargo run --example hello`, then `curl localhost:8080` a few times.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use proteus_cluster::{Api, Config, Exit};

fn main() -> proteus_cluster::Result<Exit> {
    proteus_cluster::logger::init();
    let config = Config::builder()
        .workers(4)
        .listen("http", "127.0.0.1:8080")
        .api(Api::new("127.0.0.1:8111"))
        .build()?;
    proteus_cluster::run(config, |worker| {
        let listener = worker.listener("http")?;
        worker.ready()?;
        for stream in worker.incoming(&listener) {
            if let Err(error) = respond(&stream, worker.id()) {
                log::warn!("{error}");
            }
        }
        Ok(())
    })
}

/// Answers one request. A client that says nothing for a while is dropped: it must not hold the worker.
fn respond(mut stream: &TcpStream, worker: u64) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = format!("hello from worker {worker}, pid {}\n", std::process::id());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
