//! The worker against a master that the test plays, over a socket pair.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::message::{Framer, Line, ToWorker};
use crate::sys::ancillary;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The master's end.
pub(super) struct Master {
    socket: UnixStream,
    framer: Framer,
}

/// A worker with id 7 in slot 2 of generation 3, and its master.
pub(super) fn worker() -> (Worker, Master) {
    worker_with(Listeners::default())
}

fn worker_with(listeners: Listeners) -> (Worker, Master) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(SOON)).unwrap();
    let worker = Worker::start(Identity { id: 7, slot: 2, generation: 3 }, theirs, listeners).unwrap();
    (worker, Master { socket: ours, framer: Framer::new() })
}

impl Master {
    pub(super) fn disconnect(&mut self) {
        self.say(&ToWorker::Disconnect);
    }

    fn say(&mut self, message: &ToWorker) {
        self.socket.write_all(&message.encode()).unwrap();
    }

    fn hear(&mut self) -> FromWorker {
        loop {
            match self.framer.next_line() {
                Some(Line::Text(text)) => return FromWorker::parse(text).unwrap(),
                Some(Line::Oversize(_)) => panic!("oversize"),
                None => {
                    let mut buffer = [0; 4096];
                    let bytes = self.socket.read(&mut buffer).unwrap();
                    assert!(bytes > 0, "the worker's end was closed");
                    self.framer.push(&buffer[..bytes]);
                }
            }
        }
    }

    fn hear_listen(&mut self) -> String {
        match self.hear() {
            FromWorker::Listen { address } => address,
            other => panic!("{other:?}"),
        }
    }

    fn give(&mut self, address: &str, socket: impl AsFd) {
        let line = ToWorker::Listening { address: address.into(), outcome: Ok(()) }.encode();
        let sent = ancillary::send(self.socket.as_fd(), &line, Some(socket.as_fd())).unwrap();
        assert_eq!(sent, line.len());
    }
}

/// The result of `f`, which must come soon.
pub(super) fn soon<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(f()));
    told.recv_timeout(SOON).expect("in time")
}

fn wait_disconnected(worker: &Worker) {
    let worker = worker.clone();
    soon(move || worker.wait_for_disconnect());
}

#[test]
fn it_says_hello_and_ready_once() {
    let (worker, mut master) = worker();
    assert_eq!((worker.id(), worker.slot(), worker.generation()), (7, 2, 3));
    worker.ready().unwrap();
    worker.ready().unwrap();
    worker.alive();
    let said: Vec<_> = (0..3).map(|_| master.hear()).collect();
    assert_eq!(said, [FromWorker::Hello, FromWorker::Ready, FromWorker::Alive]);
}

#[test]
fn the_line_disconnects_whatever_surrounds_it() {
    let (worker, mut master) = worker();
    master
        .socket
        .write_all(b"garbage\n{\"cmd\":\"PROTEUS_LATER\"}\n\"text\"\n{\"cmd\":\"__proto__\"}\n")
        .unwrap();
    assert!(!worker.disconnect_requested());
    master.disconnect();
    wait_disconnected(&worker);
    assert!(worker.disconnect_requested());
}

#[test]
fn a_master_that_is_gone_disconnects() {
    let (worker, master) = worker();
    worker.ready().unwrap();
    drop(master); // with unread lines: the worker reads a reset, not an end
    wait_disconnected(&worker);
    assert!(worker.listen("127.0.0.1:0").unwrap_err().is_ended());
    assert!(worker.tell(&FromWorker::Ready).unwrap_err().is_ended());
    worker.alive();
}

#[test]
fn named_listeners_come_by_kind() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let (worker, _master) = worker_with(Listeners::of(vec![("http".into(), tcp.into())]));
    assert_eq!(worker.listener("http").unwrap().local_addr().unwrap(), address);
    assert!(worker.udp_socket("http").is_err());
    assert!(worker.unix_listener(String::from("other")).is_err());
}

#[test]
fn several_threads_listen_at_once() {
    let (worker, mut master) = worker();
    assert_eq!(master.hear(), FromWorker::Hello);
    let addresses: Vec<String> = (1..=4).map(|n| format!("127.0.0.{n}:80")).collect();
    let asking: Vec<_> = addresses
        .iter()
        .chain(&addresses)
        .map(|address| {
            let (worker, address) = (worker.clone(), address.clone());
            thread::spawn(move || worker.listen(address))
        })
        .collect();
    let mut asked: Vec<String> = asking.iter().map(|_| master.hear_listen()).collect();
    asked.sort();
    let sockets: Vec<_> = asked.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    for (address, socket) in asked.iter().zip(&sockets).rev() {
        master.give(address, socket);
    }
    let mut ports: Vec<u16> = Vec::new();
    for thread in asking {
        let listener = soon(move || thread.join().unwrap()).unwrap();
        ports.push(listener.local_addr().unwrap().port());
    }
    let mut expected: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    ports.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ports, expected, "each answer reached one asker");
}

#[test]
fn a_name_is_resolved_and_a_refusal_passed_on() {
    let (worker, mut master) = worker();
    assert_eq!(master.hear(), FromWorker::Hello);
    let asking = thread::spawn(move || worker.listen("localhost:8080"));
    loop {
        let address = master.hear_listen();
        assert!(address.parse::<SocketAddr>().unwrap().ip().is_loopback());
        let answer = ToWorker::Listening { address, outcome: Err("address in use".into()) };
        master.say(&answer);
        let deadline = Instant::now() + SOON;
        while !asking.is_finished() && !readable_soon(&master) {
            assert!(Instant::now() < deadline);
        }
        if asking.is_finished() {
            break;
        }
    }
    let refused = asking.join().unwrap().unwrap_err();
    assert!(refused.to_string().ends_with(":8080: address in use"), "{refused}");
}

fn readable_soon(master: &Master) -> bool {
    crate::sys::accept::readable(master.socket.as_fd(), Duration::from_millis(5)).unwrap()
}

#[test]
fn the_wrong_kind_of_answer_and_a_lost_master_are_errors() {
    let (worker, mut master) = worker();
    assert_eq!(master.hear(), FromWorker::Hello);
    let other = worker.clone();
    let asking = thread::spawn(move || other.listen("127.0.0.1:80"));
    let address = master.hear_listen();
    master.give(&address, UdpSocket::bind("127.0.0.1:0").unwrap());
    let wrong = asking.join().unwrap().unwrap_err();
    assert!(wrong.to_string().contains("kind udp"), "{wrong}");
    let asking = thread::spawn(move || worker.listen("127.0.0.1:80"));
    master.hear_listen();
    drop(master);
    assert!(soon(move || asking.join().unwrap()).unwrap_err().is_ended());
}

#[test]
fn serve_waits_for_work_elsewhere() {
    let (worker, _master) = worker();
    let (tell, told) = mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        serve(&worker, false, move |worker| {
            let guard = worker.in_flight();
            thread::spawn(move || {
                let _guard = guard;
                told.recv().unwrap();
            });
            Ok(())
        })
    });
    thread::yield_now();
    assert!(!serving.is_finished());
    tell.send(()).unwrap();
    soon(move || serving.join().unwrap()).unwrap();
}

#[test]
fn serve_tells_why_the_closure_failed() {
    let (worker, mut master) = worker();
    let failed = serve(&worker, false, |_| Err("no database".into())).unwrap_err();
    assert_eq!(failed.to_string(), "the worker failed: no database");
    let panicked = std::panic::catch_unwind(|| serve(&worker, false, |_| panic!("at {}", "once")));
    assert!(panicked.is_err());
    let said: Vec<_> = (0..3).map(|_| master.hear()).collect();
    let failed = |reason: &str| FromWorker::Failed { reason: reason.into() };
    assert_eq!(said, [FromWorker::Hello, failed("no database"), failed("panicked: at once")]);
}

#[test]
fn sigterm_counts_as_being_told() {
    let (worker, _master) = worker();
    let serving = move || {
        serve(&worker, true, |worker| {
            signal_hook::low_level::raise(signal_hook::consts::SIGTERM)?;
            worker.wait_for_disconnect();
            Ok(())
        })
    };
    soon(serving).unwrap();
}

#[test]
fn from_env_outside_of_a_cluster_is_none() {
    assert!(Worker::from_env().unwrap().is_none());
}

/// What the shell makes of its stdin and stdout: the channel at 9 and the listener at 3.
const BIRTH: &str = r#"LISTEN_PID=$$ exec "$0" "$@" 9<&0 3>&1 0</dev/null 1>&2"#;

#[test]
fn a_process_finds_its_channel_and_listeners() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(SOON)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", BIRTH])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "worker::tests::as_a_worker_process", "--nocapture"])
        .env("PROTEUS_TEST_PART", "worker")
        .envs([("PROTEUS_CHANNEL_FD", "9"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")])
        .envs([("PROTEUS_WORKER_ID", "7"), ("PROTEUS_SLOT", "2"), ("PROTEUS_GENERATION", "3")])
        .stdin(OwnedFd::from(theirs))
        .stdout(OwnedFd::from(listener))
        .spawn()
        .unwrap();
    let mut master = Master { socket: ours, framer: Framer::new() };
    assert_eq!([master.hear(), master.hear()], [FromWorker::Hello, FromWorker::Ready]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    drop(master);
    assert!(soon(move || child.wait().unwrap()).success());
}

/// Not a test of its own: plays the process that the test above starts, and that process's child.
#[test]
fn as_a_worker_process() {
    match env::var("PROTEUS_TEST_PART").as_deref() {
        Ok("worker") => play_worker(),
        Ok("child") => assert!(Worker::from_env().unwrap().is_none(), "a worker's child is no worker"),
        _ => {}
    }
}

fn play_worker() {
    let worker = Worker::from_env().unwrap().expect("a worker");
    assert_eq!(Worker::from_env().unwrap().unwrap().id(), 7, "the same again");
    let mut child = Command::new(env::current_exe().unwrap());
    assert!(child.args(env::args().skip(1)).env("PROTEUS_TEST_PART", "child").status().unwrap().success());
    let listener = worker.listener("http").unwrap();
    worker.ready().unwrap();
    for mut stream in worker.incoming(&listener) {
        stream.write_all(b"x").unwrap();
    }
}
