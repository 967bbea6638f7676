//! Workers that send far more than anybody should, each of one kind. Once all is sent, or once the master takes no
//! more of it, there is the file `sent`.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use proteus_cluster::{Api, Cluster, Config, Message, Ready, WorkerInfo};
use serde_json::{Value, json};

use super::notify;
use crate::harness::{pause, sys};

/// A master that takes nothing for so long has stopped reading.
const STOPPED: Duration = Duration::from_millis(400);

/// Of lines that must stay below the limit of 4 MiB.
const BIG: usize = 3_900_000;

pub(super) fn play(what: &str) -> i32 {
    let mut channel = raw_channel();
    notify("READY=1");
    while !std::path::Path::new("go").exists() {
        pause();
    }
    if what == "answers read later" {
        return read_later(channel);
    }
    channel.set_write_timeout(Some(STOPPED)).expect("a time-out");
    send(what, &mut channel);
    std::fs::write("sent", "").expect("a file");
    if what == "failed" {
        return 1;
    }
    loop {
        pause();
    }
}

/// A program that has the cluster in it, and a listener that hears one message for ever.
pub(super) fn host(what: &str) -> i32 {
    if std::env::var_os("PROTEUS_WORKER_ID").is_some() {
        return play(what);
    }
    let socket = std::env::current_dir().expect("a folder").join("api.sock");
    let config = Config::builder()
        .workers(1)
        .ready(Ready::Notify)
        .api(Api::new(format!("unix:{}", socket.display())))
        .build()
        .expect("good settings");
    let cluster = Cluster::new(config).expect("a cluster");
    let listen = |_: &Message, _: &WorkerInfo| loop {
        pause();
    };
    cluster.handle().add_message_listener("heard", listen).expect("not ended");
    i32::from(cluster.run().is_err())
}

fn send(what: &str, channel: &mut UnixStream) {
    let sent = match what {
        "line" => repeat(channel, 64, |_| vec![b'x'; 1 << 20]),
        "messages" => {
            lines(channel, 40_000, |n| json!({ "cmd": "nobody listens", "n": n, "text": "x".repeat(1000) }))
        }
        "listen" => lines(channel, 100_000, |n| {
            let address = if n.is_multiple_of(2) { "127.0.0.1:0" } else { "no address \n\u{1b}[31m" };
            json!({ "cmd": "PROTEUS_LISTEN", "address": address })
        }),
        "addresses" => lines(channel, 2_000, |n| {
            let address = format!("127.1.{}.{}:0", n / 250, 1 + n % 250);
            json!({ "cmd": "PROTEUS_LISTEN", "address": address })
        }),
        "heard" => lines(channel, 40_000, |n| json!({ "cmd": "heard", "n": n, "text": "x".repeat(1000) })),
        "long address" => {
            lines(channel, 8, |_| json!({ "cmd": "PROTEUS_LISTEN", "address": "\n".repeat(BIG / 2) }))
        }
        "answers" => lines(
            channel,
            30,
            |n| json!({ "cmd": "PROTEUS_ANSWERS", "to": format!("{n}{}", "x".repeat(BIG)) }),
        ),
        "failed" => lines(channel, 1, |_| json!({ "cmd": "PROTEUS_FAILED", "reason": "x".repeat(BIG) })),
        "panicked" => {
            lines(channel, 10_000, |_| json!({ "cmd": "PROTEUS_PANICKED", "text": "x\n".repeat(1000) }))
        }
        "reserved" => repeat(channel, 5, |_| bushy("PROTEUS_READY")),
        "log" => lines(channel, 100_000, |_| json!({ "cmd": "PROTEUS_LOG", "message": "x".repeat(1000) })),
        "log values" => repeat(channel, 5, |_| bushy_log()),
        "restart me" => lines(channel, 20_000, |_| json!({ "cmd": "PROTEUS_RESTART_ME" })),
        "handles" => lines(channel, 40_000, node_line),
        "node data" => repeat(channel, 5, |_| bushy_query()),
        "status" => datagrams(5_000, format!("STATUS={}", "\u{1b}".repeat(60_000)).as_bytes(), 0),
        "descriptors" => datagrams(200, b"X=1", 253),
        "extend" => datagrams(20_000, b"EXTEND_TIMEOUT_USEC=18446744073709551615", 0),
        "stdout" => output(|out| {
            let lines = b"a line of the worker's own\n".repeat(2000);
            (0..1000).try_for_each(|_| out.write_all(&lines))
        }),
        "stdout line" => output(|out| (0..64).try_for_each(|_| out.write_all(&vec![b'x'; 1 << 20]))),
        _ => panic!("unknown: {what}"),
    };
    if let Err(error) = sent {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{what}: {error}");
    }
}

/// Asks often, and reads the answers, each with its descriptor, only once it may.
fn read_later(channel: UnixStream) -> i32 {
    const ASKED: usize = 5000;
    let mut reader = BufReader::new(channel.try_clone().expect("a descriptor"));
    let writer = std::thread::spawn(move || {
        let mut channel = channel;
        lines(&mut channel, ASKED, |_| json!({ "cmd": "PROTEUS_LISTEN", "address": "127.0.0.1:0" }))
    });
    while !std::path::Path::new("read").exists() {
        pause();
    }
    for _ in 0..ASKED {
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        assert!(line.contains("\"fd\":true"), "{line}");
    }
    writer.join().expect("no panic").expect("the master reads on");
    std::fs::write("read to the end", "").expect("a file");
    loop {
        pause();
    }
}

fn repeat(channel: &mut UnixStream, count: usize, line: impl Fn(usize) -> Vec<u8>) -> std::io::Result<()> {
    (0..count).try_for_each(|n| channel.write_all(&line(n)))
}

fn lines(channel: &mut UnixStream, count: usize, line: impl Fn(usize) -> Value) -> std::io::Result<()> {
    let mut batch = Vec::new();
    for n in 0..count {
        batch.extend_from_slice(format!("{}\n", line(n)).as_bytes());
        if batch.len() > 1 << 16 || n + 1 == count {
            channel.write_all(&batch)?;
            batch.clear();
        }
    }
    Ok(())
}

/// Few bytes that are many values.
fn bush() -> String {
    format!("[{}0]", "{\"a\":0},".repeat(BIG / 8))
}

fn bushy(cmd: &str) -> Vec<u8> {
    format!("{{\"cmd\":\"{cmd}\",\"x\":{}}}\n", bush()).into_bytes()
}

fn bushy_log() -> Vec<u8> {
    format!("{{\"cmd\":\"PROTEUS_LOG\",\"message\":\"m\",\"kv\":{{\"x\":{}}}}}\n", bush()).into_bytes()
}

fn bushy_query() -> Vec<u8> {
    let query = json!({ "cmd": "NODE_CLUSTER", "act": "queryServer", "index": 0, "address": "127.0.0.1", "port": 0,
        "addressType": 4, "seq": 1, "data": "BUSH" });
    format!("{query}\n").replace("\"BUSH\"", &bush()).into_bytes()
}

/// Asks for a listener and closes it again, without a word that its handle has come.
fn node_line(n: usize) -> Value {
    let index = "i".repeat(900);
    if n.is_multiple_of(2) {
        json!({ "cmd": "NODE_CLUSTER", "act": "queryServer", "index": index, "address": "127.0.0.1", "port": 0,
            "addressType": 4, "seq": n })
    } else {
        let key = format!("127.0.0.1:0:4:null:{index}");
        json!({ "cmd": "NODE_CLUSTER", "act": "close", "key": key, "seq": n })
    }
}

fn datagrams(count: usize, message: &[u8], descriptors: usize) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let name = std::env::var("NOTIFY_SOCKET").expect("a notify socket");
    socket.connect_addr(&SocketAddr::from_abstract_name(name.trim_start_matches('@'))?)?;
    socket.set_write_timeout(Some(STOPPED))?;
    let file = std::fs::File::open("/dev/null")?;
    let fds = vec![file.as_fd().as_raw_fd(); descriptors];
    (0..count).try_for_each(|_| sys::send_with_descriptors(&socket, message, &fds))
}

fn output(write: impl FnOnce(&mut std::io::StdoutLock<'_>) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    write(&mut out)?;
    out.flush()
}

fn raw_channel() -> UnixStream {
    let number = |key| std::env::var(key).ok()?.parse().ok();
    let number = number("PROTEUS_CHANNEL_FD").or_else(|| number("NODE_CHANNEL_FD")).expect("a channel");
    UnixStream::from(sys::inherited(number))
}
