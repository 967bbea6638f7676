//! `incoming` on real sockets: it ends in time, loses nothing, and interrupts nobody else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libc::{O_CLOEXEC, O_NONBLOCK};
use socket2::SockRef;

use super::Worker;
use super::tests::{soon, worker};

/// Longer than anything here takes on a busy machine, and shorter than a stranded connection waits.
const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Mode {
    Blocking,
    NonBlocking,
}

const MODES: [Mode; 2] = [Mode::Blocking, Mode::NonBlocking];

fn listener(mode: Mode) -> (Arc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(matches!(mode, Mode::NonBlocking)).unwrap();
    let address = listener.local_addr().unwrap();
    (Arc::new(listener), address)
}

/// A thread that greets every connection with one byte, and returns how many there were.
fn greeter(worker: &Worker, listener: &Arc<TcpListener>) -> JoinHandle<usize> {
    let (worker, listener) = (worker.clone(), Arc::clone(listener));
    thread::spawn(move || {
        let greet = |mut stream: TcpStream| stream.write_all(b"x").unwrap();
        worker.incoming(&*listener).map(greet).count()
    })
}

fn is_greeted(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.read_exact(&mut [0; 1])
}

#[test]
fn an_idle_iterator_ends_at_once_and_stays_ended() {
    for mode in MODES {
        let (worker, mut master) = worker();
        let (listener, address) = listener(mode);
        let (tell, told) = mpsc::channel();
        let iterating = thread::spawn(move || {
            let mut incoming = worker.incoming(&*listener);
            let first = incoming.next().is_some();
            tell.send(()).unwrap();
            (first, incoming.next().is_none(), incoming.next().is_none())
        });
        TcpStream::connect(address).unwrap();
        told.recv_timeout(SOON).unwrap();
        let asked = Instant::now();
        master.disconnect();
        assert_eq!(soon(move || iterating.join().unwrap()), (true, true, true), "{mode:?}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{mode:?}: {:?}", asked.elapsed());
    }
}

#[test]
fn the_last_pass_takes_what_is_queued() {
    for mode in MODES {
        let (worker, mut master) = worker();
        let (listener, address) = listener(mode);
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        master.disconnect();
        let thread = worker.clone();
        soon(move || thread.wait_for_disconnect());
        let accepted = greeter(&worker, &listener);
        assert_eq!(soon(move || accepted.join().unwrap()), clients.len(), "{mode:?}");
    }
}

#[test]
fn a_busy_queue_does_not_hold_a_worker_that_leaves() {
    let (worker, mut master) = worker();
    let (listener, address) = listener(Mode::Blocking);
    let _first = TcpStream::connect(address).unwrap();
    master.disconnect();
    let count = soon(move || {
        worker.wait_for_disconnect();
        let mut later = Vec::new();
        worker.incoming(&*listener).map(|_| later.push(TcpStream::connect(address).unwrap())).count()
    });
    assert_eq!(count, 1);
}

#[test]
fn the_mode_may_change_under_an_iterator() {
    let (worker, mut master) = worker();
    let (listener, address) = listener(Mode::Blocking);
    let accepted = greeter(&worker, &listener);
    for round in 0..200 {
        listener.set_nonblocking(round % 2 == 0).unwrap();
        is_greeted(address).unwrap();
    }
    master.disconnect();
    assert_eq!(soon(move || accepted.join().unwrap()), 200);
}

#[test]
fn streams_block_and_are_close_on_exec() {
    for mode in MODES {
        let (worker, _master) = worker();
        let (listener, address) = listener(mode);
        let _client = TcpStream::connect(address).unwrap();
        let stream = worker.incoming(&*listener).next().unwrap();
        assert_eq!(flags(&stream) & (O_NONBLOCK | O_CLOEXEC), O_CLOEXEC, "{mode:?}");
    }
}

fn flags(stream: &TcpStream) -> i32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", stream.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap()
}

#[test]
fn unix_listeners_too() {
    let path = std::env::temp_dir().join(format!("proteus-incoming-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (worker, mut master) = worker();
    let (tell, told) = mpsc::channel();
    let counting = thread::spawn(move || worker.incoming(&listener).map(|_| tell.send(()).unwrap()).count());
    told.recv_timeout(SOON).unwrap();
    master.disconnect();
    assert_eq!(soon(move || counting.join().unwrap()), 1);
}

/// As the master does it.
fn listen_again(listener: &TcpListener, address: SocketAddr) {
    // The second time its port is its own.
    drop(SockRef::from(listener).bind(&address.into()));
    SockRef::from(listener).listen(16).unwrap();
}

#[test]
fn a_listener_that_somebody_shuts_down_is_waited_for() {
    for mode in MODES {
        let (worker, mut master) = worker();
        let (listener, address) = listener(mode);
        let accepted = greeter(&worker, &listener);
        for _ in 0..2 {
            is_greeted(address).unwrap();
            SockRef::from(&*listener).shutdown(Shutdown::Both).unwrap();
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            listen_again(&listener, address);
        }
        is_greeted(address).unwrap();
        SockRef::from(&*listener).shutdown(Shutdown::Both).unwrap();
        master.disconnect();
        assert_eq!(soon(move || accepted.join().unwrap()), 3, "{mode:?}: it ends at once, silently");
    }
}

#[test]
fn one_that_stays_shut_down_ends_it() {
    let (worker, _master) = worker();
    let (listener, address) = listener(Mode::Blocking);
    let accepted = greeter(&worker, &listener);
    is_greeted(address).unwrap();
    SockRef::from(&*listener).shutdown(Shutdown::Both).unwrap();
    assert_eq!(soon(move || accepted.join().unwrap()), 1);
    assert!(!worker.disconnect_requested());
}

#[test]
fn many_threads_share_and_all_end() {
    for mode in MODES {
        let (worker, mut master) = worker();
        let (listener, address) = listener(mode);
        let threads: Vec<_> = (0..8).map(|_| greeter(&worker, &listener)).collect();
        let clients: Vec<_> = (0..4)
            .map(|_| thread::spawn(move || (0..250).for_each(|_| is_greeted(address).unwrap())))
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        master.disconnect();
        let total: usize = soon(move || threads.into_iter().map(|thread| thread.join().unwrap()).sum());
        assert_eq!(total, 1000, "{mode:?}");
    }
}

/// One connection and one worker's order to leave at the same moment, while another worker stays: whoever the
/// kernel wakes, somebody accepts.
fn race(mode: Mode, rounds: usize) {
    let (listener, address) = listener(mode);
    let (stays, mut its_master) = worker();
    let staying = greeter(&stays, &listener);
    let mut left = 0;
    for round in 0..rounds {
        let (leaves, _master) = worker();
        let leaving = greeter(&leaves, &listener);
        spin(Duration::from_micros(50));
        is_greeted(address).unwrap(); // whoever waited first goes to the tail: the leaving one is often next
        let start = Arc::new(Barrier::new(2));
        let at_once = Arc::clone(&start);
        let client = thread::spawn(move || {
            at_once.wait();
            is_greeted(address)
        });
        start.wait();
        spin(Duration::from_micros(round as u64 % 100));
        leaves.0.disconnect.request();
        client.join().unwrap().unwrap_or_else(|error| panic!("{mode:?} round {round}: stranded: {error}"));
        left += soon(move || leaving.join().unwrap());
    }
    its_master.disconnect();
    let stayed = soon(move || staying.join().unwrap());
    assert_eq!(left + stayed, 2 * rounds, "{mode:?}");
}

/// Shorter than any sleep can be.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn no_connection_is_stranded_by_a_leaving_worker() {
    race(Mode::Blocking, 2000);
}

#[test]
fn nor_on_a_non_blocking_listener() {
    race(Mode::NonBlocking, 2000);
}

#[test]
fn no_other_call_is_interrupted() {
    let (listener, address) = listener(Mode::Blocking);
    for round in 0..300 {
        let (worker, mut master) = worker();
        let queued = (round % 2 == 0).then(|| TcpStream::connect(address).unwrap());
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        let listener = Arc::clone(&listener);
        let user = thread::spawn(move || {
            let quiet = || (&ours).read(&mut [0; 1]).unwrap_err().kind();
            let mut calls: Vec<_> = worker.incoming(&*listener).map(|_| quiet()).collect();
            calls.push(quiet());
            calls
        });
        thread::yield_now();
        master.disconnect();
        let calls = soon(move || user.join().unwrap());
        assert!(calls.iter().all(|kind| *kind == io::ErrorKind::WouldBlock), "round {round}: {calls:?}");
        assert_eq!(calls.len(), 1 + usize::from(queued.is_some()), "round {round}");
    }
}
