//! Workers that serve what they were given, and a parent that hands sockets to a master.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use proteus_cluster::Worker;
use socket2::SockRef;

use super::{converse, read_request, respond, say, serve};
use crate::harness::{pause, proteus, sys};

fn worker() -> Worker {
    Worker::from_env().expect("a worker").expect("started by a master")
}

fn variable(key: &str) -> String {
    std::env::var(key).unwrap_or_else(|_| panic!("{key} is not set"))
}

/// The page's `worker.js`: asks for its own listener, as `app.listen(8080)` does there.
pub(super) fn page() -> i32 {
    let worker = worker();
    let listener = worker.listen(variable("PROTEUS_TEST_ADDRESS")).expect("a shared listener");
    worker.ready().expect("told the master");
    for stream in worker.incoming(&listener) {
        drop(serve(&stream));
    }
    0
}

/// Says of each connection that it accepts whether it has `TCP_NODELAY`, on `http` and on a listener of its own.
pub(super) fn nodelay() -> i32 {
    let worker = worker();
    let given = worker.listener("http").expect("the listener");
    let asked = worker.listen(variable("PROTEUS_TEST_ADDRESS")).expect("a shared listener");
    worker.ready().expect("told the master");
    let say = |listener: &TcpListener| {
        for mut stream in worker.incoming(listener) {
            let nodelay = stream.nodelay().expect("an option");
            drop(read_request(&mut BufReader::new(&stream)));
            drop(respond(&mut stream, false, &nodelay.to_string()));
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| say(&asked));
        say(&given);
    });
    0
}

/// Asks like the page's worker, unless the file `quiet` is there; what is refused goes to stderr.
pub(super) fn asks() -> i32 {
    let worker = worker();
    let listener = if std::path::Path::new("quiet").exists() {
        None
    } else {
        worker
            .listen(variable("PROTEUS_TEST_ADDRESS"))
            .inspect_err(|error| say(&format!("worker {} was refused: {error}", worker.id())))
            .ok()
    };
    worker.ready().expect("told the master");
    if let Some(listener) = listener {
        for stream in worker.incoming(&listener) {
            drop(serve(&stream));
        }
    }
    worker.wait_for_disconnect();
    0
}

/// TCP `http`, unix `admin` and UDP `dns` at once.
pub(super) fn all_kinds() -> i32 {
    let worker = worker();
    let http = worker.listener("http").expect("tcp");
    let admin = worker.unix_listener("admin").expect("unix");
    let dns = worker.udp_socket("dns").expect("udp");
    let clone = worker.clone();
    let serving = thread::spawn(move || {
        for stream in clone.incoming(&admin) {
            drop(converse(&stream, || false));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = dns.recv_from(&mut buffer) {
            drop(dns.send_to(format!("pid={}\n", std::process::id()).as_bytes(), from));
        }
    });
    worker.ready().expect("told the master");
    for stream in worker.incoming(&http) {
        drop(serve(&stream));
    }
    serving.join().expect("no panic");
    0
}

/// Ready at once, but accepts nothing until the file `go` is there.
pub(super) fn late() -> i32 {
    let worker = worker();
    let listener = worker.listener("http").expect("the listener");
    worker.ready().expect("told the master");
    while !std::path::Path::new("go").exists() {
        if worker.disconnect_requested() {
            return 0;
        }
        pause();
    }
    for stream in worker.incoming(&listener) {
        drop(serve(&stream));
    }
    0
}

/// Takes connections until told to go, and answers them once the file `go` is there; `late` takes none before. Asks for
/// a listener of its own, unless the file `quiet` is there.
pub(super) fn in_hand(mode: &str) -> i32 {
    let worker = worker();
    let (tcp, admin) = all_of(&worker);
    worker.ready().expect("told the master");
    if mode == "late" {
        wait_for_go();
    }
    thread::scope(|scope| {
        for listener in &tcp {
            scope.spawn(|| worker.incoming(listener).for_each(|stream| drop(scope.spawn(|| answer(stream)))));
        }
        if let Some(admin) = &admin {
            scope.spawn(|| worker.incoming(admin).for_each(|stream| drop(scope.spawn(|| answer(stream)))));
        }
    });
    0
}

/// The listeners that it was given and has asked for: TCP, and `admin`.
fn all_of(worker: &Worker) -> (Vec<TcpListener>, Option<UnixListener>) {
    let names = variable("LISTEN_FDNAMES");
    let tcp = names.split(':').filter(|name| *name != "admin").map(|name| worker.listener(name));
    let mut tcp: Vec<TcpListener> = tcp.map(|listener| listener.expect("the listener")).collect();
    if !std::path::Path::new("quiet").exists() {
        tcp.extend(std::env::var("PROTEUS_TEST_ADDRESS").map(|at| worker.listen(at).expect("a listener")));
    }
    (tcp, worker.unix_listener("admin").ok())
}

/// Ends as many programs get out of their accept: by `shutdown(2)` of the listener, which is everybody's. Where the
/// file `crash` is there it does so by itself.
pub(super) fn shuts() -> i32 {
    let worker = worker();
    let (tcp, admin) = all_of(&worker);
    worker.ready().expect("told the master");
    let shut_all = || {
        for listener in &tcp {
            drop(SockRef::from(listener).shutdown(Shutdown::Both));
        }
        if let Some(listener) = &admin {
            drop(SockRef::from(listener).shutdown(Shutdown::Both));
        }
    };
    thread::scope(|scope| {
        for listener in &tcp {
            scope.spawn(|| worker.incoming(listener).for_each(|stream| drop(serve(&stream))));
        }
        if let Some(admin) = &admin {
            scope.spawn(|| worker.incoming(admin).for_each(|stream| drop(converse(&stream, || false))));
        }
        while !worker.disconnect_requested() {
            if std::fs::remove_file("crash").is_ok() {
                shut_all();
                std::process::exit(7);
            }
            pause();
        }
    });
    shut_all();
    0
}

fn answer(mut stream: impl Write) {
    say("a connection in hand");
    wait_for_go();
    drop(stream.write_all(b"x"));
}

fn wait_for_go() {
    while !std::path::Path::new("go").exists() {
        pause();
    }
}

/// What systemd does: binds the sockets, then becomes a master that finds them at 3, 4, 5…
pub(super) fn activate() -> i32 {
    let addresses = variable("PROTEUS_TEST_SOCKETS");
    let sockets: Vec<OwnedFd> = addresses.split(' ').map(bind).collect();
    sys::hand_over(&sockets);
    let number = match std::env::var("PROTEUS_TEST_NUMBER").as_deref() {
        Ok("own") => sys::own_number(),
        Ok(_) => Some(1),
        Err(_) => None,
    };
    let error = Command::new(proteus())
        .args(["run", "--config", "proteus.json"])
        .env_remove("PROTEUS_TEST_ROLE")
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", variable("PROTEUS_TEST_NAMES"))
        .envs(number.map(|number| ("LISTEN_PIDFDID", number.to_string())))
        .exec();
    panic!("{error}");
}

fn bind(address: &str) -> OwnedFd {
    if let Some(name) = address.strip_prefix("unix:@") {
        let name = SocketAddr::from_abstract_name(name).expect("a name");
        return UnixListener::bind_addr(&name).expect("bound").into();
    }
    if let Some(path) = address.strip_prefix("unix:") {
        return UnixListener::bind(path).expect("bound").into();
    }
    if let Some(address) = address.strip_prefix("udp:") {
        return UdpSocket::bind(address).expect("bound").into();
    }
    TcpListener::bind(address).expect("bound").into()
}
