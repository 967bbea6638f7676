//! The cluster beside a service's own threads: `cargo run --example beside`, then type
//! `status`, `restart` or `stop`, or `curl localhost:8081`.
//!
//! `run(config, closure)` is the short form; this is the long one, for a program that has work of its
//! own in the master: here a console on stdin and a thread that watches the workers.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use proteus_cluster::{Cluster, Config, Exit, Handle, RestartOutcome, Worker};

fn main() -> proteus_cluster::Result<Exit> {
    proteus_cluster::logger::init();
    if let Some(worker) = Worker::from_env()? {
        return serve(&worker);
    }
    let config = Config::builder().workers(2).listen("http", "127.0.0.1:8081").build()?;
    let cluster = Cluster::new(config)?;
    let (console, watch) = (cluster.handle(), cluster.handle());
    thread::spawn(move || read_orders(&console));
    thread::spawn(move || count_crashes(&watch));
    cluster.run() // on this thread: the workers die with the thread that started them
}

/// The service's own threads go on as ever; this one takes orders from a terminal.
fn read_orders(cluster: &Handle) {
    for line in io::stdin().lines().map_while(Result::ok) {
        let done = match line.trim() {
            "status" => cluster.status().map(|status| {
                for worker in status.workers {
                    println!("worker {} in slot {} is {}", worker.id, worker.slot, worker.state);
                }
            }),
            "restart" => cluster.restart().and_then(|restart| {
                match restart.wait(Duration::from_secs(30))? {
                    RestartOutcome::Completed => println!("restarted"),
                    RestartOutcome::Aborted { reason, .. } => println!("not restarted: {reason}"),
                    _ => println!("restart ended"),
                }
                Ok(())
            }),
            "stop" => cluster.shutdown(),
            other => {
                println!("{other:?}? status, restart or stop");
                Ok(())
            }
        };
        if let Err(error) = done {
            println!("{error}");
            return;
        }
    }
}

fn count_crashes(cluster: &Handle) {
    let mut seen = 0;
    while let Ok(status) = cluster.status() {
        if status.forks.crashes > seen {
            seen = status.forks.crashes;
            println!("{seen} crashes so far");
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// A worker: a thread a connection, all of them done before it ends.
fn serve(worker: &Worker) -> proteus_cluster::Result<Exit> {
    let listener = worker.listener("http")?;
    worker.ready()?;
    thread::scope(|scope| {
        for stream in worker.incoming(&listener) {
            scope.spawn(move || {
                if let Err(error) = respond(&stream) {
                    log::warn!("{error}");
                }
            });
        }
    });
    Ok(Exit::Graceful)
}

fn respond(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = format!("hello from pid {}\n", std::process::id());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
