//! Callers of the control API who do not read their answers, or leave before them: nobody else waits for them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::http::over_tcp;
use crate::harness::master::{idle_settings, shell_settings};
use crate::harness::{Master, PATIENCE, Scene, eventually, pause, proc, sys, wait_until};

/// Dies once, after so much on stderr that the status of many is long; then stays.
const WORDY: &str = r#"[ -e "seen$PROTEUS_SLOT" ] && exec sleep 1000
: > "seen$PROTEUS_SLOT"
head -c 8000 /dev/zero | tr '\0' '"' >&2
exit 1"#;

/// Far below what a blocked gate would take, far above what a loaded machine does.
const SOON: Duration = Duration::from_secs(2);

/// A master whose status is longer than all that sockets hold.
fn wordy(scene: &Scene) -> Master {
    let mut settings = shell_settings(WORDY);
    settings["worker"] = json!(60);
    settings["ready"] = json!("alive");
    settings["minUptime"] = json!(0);
    let master = Master::run(scene, &settings);
    wait_until("a long status", || master.try_ask("/status").is_ok_and(|answer| answer.body.len() > 900_000));
    master
}

fn call(master: &Master, line: &str) -> UnixStream {
    let mut stream = UnixStream::connect(master.api()).expect("the API");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    write!(stream, "GET {line} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
    stream
}

#[track_caller]
fn is_answered_soon(master: &Master, path: &str) {
    let began = Instant::now();
    assert_eq!(master.ask(path).status, 200, "{path}");
    assert!(began.elapsed() < SOON, "{path}: {:?}\n{}", began.elapsed(), master.log_text());
}

#[test]
fn who_does_not_read_holds_up_nobody() {
    let scene = Scene::new("readers-none");
    let master = wordy(&scene);
    let first = call(&master, "/status");
    is_answered_soon(&master, "/health");
    // More than there are places.
    let crowd: Vec<_> = (0..24).map(|_| call(&master, "/status")).collect();
    is_answered_soon(&master, "/health");
    is_answered_soon(&master, "/status");
    drop((first, crowd));
    master.stop(&scene);
}

#[test]
fn who_reads_a_little_at_a_time_gets_all_of_it_and_holds_up_nobody() {
    let scene = Scene::new("readers-slow");
    let master = wordy(&scene);
    let mut slow = call(&master, "/status");
    let (mut answer, mut piece) = (Vec::new(), [0; 2048]);
    for _ in 0..20 {
        let count = slow.read(&mut piece).expect("a piece");
        answer.extend_from_slice(&piece[..count]);
        is_answered_soon(&master, "/health");
        pause();
    }
    slow.read_to_end(&mut answer).expect("the rest");
    let text = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    master.stop(&scene);
}

#[test]
fn who_does_not_read_while_descriptors_are_short_holds_up_nobody_for_ever() {
    let scene = Scene::new("readers-emfile");
    let master = wordy(&scene);
    let pid = master.pid();
    for spare in 0..8 {
        let slow = call(&master, "/status");
        is_answered_soon(&master, "/health");
        sys::limit_descriptors(pid, proc::descriptors(pid) as u64 + spare);
        let mut others: Vec<_> = (0..4).map(|_| call(&master, "/health")).collect();
        for other in &mut others {
            other.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
            drop(other.read(&mut [0; 1024]));
        }
        sys::limit_descriptors(pid, 4096);
        is_answered_soon(&master, "/health");
        drop((slow, others));
    }
    master.stop(&scene);
}

#[test]
fn answered_callers_who_do_not_close_give_their_places_away() {
    let scene = Scene::new("readers-open");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    let answered = || {
        let mut stream = call(&master, "/health");
        stream.read_exact(&mut [0; 64]).expect("an answer");
        stream
    };
    let began = Instant::now();
    let open: Vec<_> = (0..160).map(|_| answered()).collect();
    // Ten times all places: a second for each round is what it may not take.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(open);
    master.stop(&scene);
}

/// A master whose restarts do not end: its replacements are never ready.
fn endless(scene: &Scene, api: &serde_json::Value) -> Master {
    let script = r#"[ -e go ] || exec sleep 1000
        rm go; echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD; exec sleep 1000"#;
    scene.write("go", "");
    let mut settings = shell_settings(script);
    settings["ready"] = json!("notify");
    settings["api"] = api.clone();
    let master = Master::run(scene, &settings);
    master.wait_log("ready; API on");
    master
}

fn on_unix(scene: &Scene) -> serde_json::Value {
    json!({ "listen": format!("unix:{}", scene.path("api.sock").display()) })
}

#[test]
fn who_has_left_keeps_no_place() {
    let scene = Scene::new("readers-left");
    let master = endless(&scene, &on_unix(&scene));
    for round in 0..5 {
        let waiting: Vec<_> = (0..8).map(|_| call(&master, "/restart?wait=1h")).collect();
        let ordered = || master.log_text().matches("restart ordered by").count() >= round * 9 + 8;
        wait_until("eight have ordered", ordered);
        drop(waiting);
        // One who waits for so short that the place is free again.
        eventually("a place", || Some(master.ask("/restart?wait=1ms")).filter(|answer| answer.status == 202));
    }
    // Only those who are there wait: each has a thread.
    wait_until("their threads have ended", || threads(master.pid(), "proteus-api-wai") == 0);
    assert_eq!(master.ask("/shutdown?wait=20s").status, 200);
    master.ends_with(&scene, 0);
}

#[test]
fn who_has_left_by_tcp_keeps_no_place() {
    let scene = Scene::new("readers-left-tcp");
    let address = scene.address(8111);
    let master = endless(&scene, &json!({ "listen": address }));
    let waiting: Vec<_> = (0..8).map(|_| tcp(&address, "/restart?wait=1h")).collect();
    wait_until("eight have ordered", || master.log_text().matches("restart ordered by").count() == 8);
    drop(waiting);
    wait_until("their threads have ended", || threads(master.pid(), "proteus-api-wai") == 0);
    let answer = over_tcp(&address, "GET", "/shutdown?wait=20s", "").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    master.ends_with(&scene, 0);
}

fn tcp(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the API");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
    stream
}

fn threads(pid: u32, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn who_has_said_all_waits_on_until_somebody_wants_the_place() {
    let scene = Scene::new("readers-half");
    let address = scene.address(8111);
    let master = endless(&scene, &json!({ "listen": address }));
    let mut waiting: Vec<_> = (0..8).map(|_| tcp(&address, "/restart?wait=1h")).collect();
    wait_until("eight have ordered", || master.log_text().matches("restart ordered by").count() == 8);
    assert_eq!(over_tcp(&address, "GET", "/restart?wait=1ms", "").expect("an answer").status, 503);
    // As `nc` does at the end of its input: it has no more to say, and reads on.
    let mut silent = waiting.remove(3);
    silent.shutdown(Shutdown::Write).expect("half of it");
    let ninth = || over_tcp(&address, "GET", "/restart?wait=1ms", "").expect("an answer");
    eventually("its place", || Some(ninth()).filter(|answer| answer.status == 202));
    let mut text = String::new();
    silent.read_to_string(&mut text).expect("an answer");
    assert!(
        text.starts_with("HTTP/1.1 503 ") && text.ends_with("others wait; what was ordered goes on"),
        "{text}"
    );
    // Another one keeps its place to the end, since nobody wants it.
    let mut kept = waiting.remove(0);
    kept.shutdown(Shutdown::Write).expect("half of it");
    assert_eq!(over_tcp(&address, "GET", "/shutdown?wait=20s", "").expect("an answer").status, 200);
    let mut text = String::new();
    kept.read_to_string(&mut text).expect("an answer");
    assert!(text.contains(r#""outcome":"aborted","reason":"shutdown""#), "{text}");
    master.ends_with(&scene, 0);
}

#[test]
fn an_order_to_stop_has_a_place_whoever_waits() {
    let scene = Scene::new("readers-stop");
    let mut settings = shell_settings(
        r"trap 'until [ -e leave ]; do sleep 0.02; done; exit' TERM; while :; do sleep 0.02; done",
    );
    settings["worker"] = json!(1);
    settings["ready"] = json!("alive");
    settings["minUptime"] = json!(20);
    settings["readyTimeout"] = json!(60_000);
    settings["canary"] = json!(30_000);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let waiting: Vec<_> = (0..8).map(|_| call(&master, "/restart?wait=1h")).collect();
    wait_until("eight have ordered", || master.log_text().matches("restart ordered by").count() == 8);
    assert_eq!(master.ask("/restart?wait=1ms").status, 503);
    let stopping: Vec<_> = (0..7).map(|_| call(&master, "/shutdown?wait=1h")).collect();
    wait_until("it has begun", || master.has_logged("shutdown ordered by"));
    // Those after the first are told that it has begun; whether or not they know by now, one more has a place.
    assert_eq!(master.ask("/force_shutdown?wait=20s").status, 200);
    for mut stream in waiting.into_iter().chain(stopping) {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 500 ") || text.starts_with("HTTP/1.1 409 "), "{text}");
    }
    master.ends_with(&scene, 1);
}
