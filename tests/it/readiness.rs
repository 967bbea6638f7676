//! How a worker is known to be ready, and what does not count.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use serde_json::{Value, json};
use socket2::{MsgHdr, SockAddr, SockRef};

use crate::harness::master::{idle_settings, role_settings, rows, shell_settings};
use crate::harness::{Master, Scene, proc, wait_until};

/// Workers that must say ready, and get a long time for it.
fn must_say(mut settings: Value) -> Value {
    settings["worker"] = json!(1);
    settings["ready"] = json!("notify");
    settings["readyTimeout"] = json!(600_000);
    settings
}

fn only_row(status: &Value) -> Value {
    rows(status).first().cloned().unwrap_or_default()
}

/// The one worker, while it starts.
#[track_caller]
fn wait_starting(master: &Master) -> u32 {
    let status = master.wait_status("it starts", |status| only_row(status)["pid"].is_number());
    let row = only_row(&status);
    assert_eq!(row["state"], "starting");
    u32::try_from(row["pid"].as_u64().expect("a pid")).expect("a pid")
}

/// Whatever was sent before has been read once the master has answered twice: it drains all sources each turn.
#[track_caller]
fn assert_still_starting(master: &Master) {
    for _ in 0..3 {
        assert_eq!(only_row(&master.status())["state"], "starting", "{}", master.log_text());
    }
}

fn notify_name(pid: u32) -> String {
    let address = proc::environment(pid)["NOTIFY_SOCKET"].clone();
    address.strip_prefix('@').expect("an abstract socket").to_owned()
}

#[test]
fn by_notify_socket_from_the_worker() {
    let scene = Scene::new("notify");
    let master = Master::run(&scene, &must_say(role_settings("foreign")));
    master.wait_one_ready();
    master.stop(&scene);
}

#[test]
fn by_notify_socket_from_a_member_of_its_group_that_is_gone_by_then() {
    for end in ["zombie", "reaped"] {
        let scene = Scene::new("notify-member");
        let master = Master::run(&scene, &must_say(role_settings(&format!("member-says-ready:{end}"))));
        master.wait_one_ready();
        master.stop(&scene);
    }
}

#[test]
fn a_stranger_does_not_speak_for_a_worker() {
    let scene = Scene::new("notify-stranger");
    let master = Master::run(&scene, &must_say(idle_settings()));
    let pid = wait_starting(&master);
    let socket = UnixDatagram::unbound().expect("a socket");
    let address = SocketAddr::from_abstract_name(notify_name(pid)).expect("an address");
    socket.send_to_addr(b"READY=1", &address).expect("sent");
    assert_still_starting(&master);
    master.stop(&scene);
}

#[test]
fn rubbish_and_descriptors_do_no_harm() {
    let scene = Scene::new("notify-rubbish");
    // Says ready for itself once it may.
    let script =
        r#"until [ -e go ]; do sleep 0.02; done; PROTEUS_TEST_ROLE=says-ready "$0" "$@"; exec sleep 1000"#;
    let mut settings = must_say(shell_settings(script));
    let args = settings["args"].as_array_mut().expect("a list");
    args.push(json!(std::env::current_exe().expect("the test binary")));
    args.extend(crate::harness::master::ROLE_ARGS.map(Value::from));
    let master = Master::run(&scene, &settings);
    let pid = wait_starting(&master);
    wait_until("the loop is quiet", || master.try_status().is_some());
    let descriptors = proc::descriptors(master.pid());
    let socket = UnixDatagram::unbound().expect("a socket");
    let address = SocketAddr::from_abstract_name(notify_name(pid)).expect("an address");
    let lines = b"READY=1\n".repeat(8192);
    for content in [vec![0; 65536], vec![b'\n'; 65536], b"READY=1".to_vec(), lines, vec![0xff; 4097], vec![]]
    {
        for _ in 0..10 {
            socket.send_to_addr(&content, &address).expect("sent");
            send_with_descriptors(&socket, pid, &content, 100);
        }
    }
    assert_still_starting(&master);
    wait_until("all descriptors are closed", || proc::descriptors(master.pid()) <= descriptors);
    scene.write("go", "");
    assert_eq!(master.wait_one_ready(), pid);
    master.stop(&scene);
}

/// One message with `count` descriptors beside it.
fn send_with_descriptors(socket: &UnixDatagram, pid: u32, content: &[u8], count: usize) {
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    let mut control = Vec::new();
    // A `cmsghdr` by hand: its length, then level and type, then the numbers.
    let length = size_of::<usize>() + 2 * size_of::<i32>() + count * size_of::<i32>();
    control.extend(length.to_ne_bytes());
    control.extend(libc::SOL_SOCKET.to_ne_bytes());
    control.extend(libc::SCM_RIGHTS.to_ne_bytes());
    control.extend(file.as_raw_fd().to_ne_bytes().repeat(count));
    let address = SockAddr::unix(format!("\0{}", notify_name(pid))).expect("an address");
    let content = [IoSlice::new(content)];
    let message = MsgHdr::new().with_addr(&address).with_buffers(&content).with_control(&control);
    SockRef::from(socket).sendmsg(&message, 0).expect("sent");
}

/// Hello and ready as lines on the channel, and the order to leave read from it: a shell needs no more.
#[test]
fn by_lines_on_the_channel_from_a_shell() {
    let scene = Scene::new("shell");
    let script = r#"fd=$PROTEUS_CHANNEL_FD
        trap ': >signalled' TERM
        echo '{"cmd":"PROTEUS_HELLO"}' >&$fd
        : >hello
        until [ -e go ]; do sleep 0.02; done
        echo '{"cmd":"PROTEUS_READY"}' >&$fd
        while read line <&$fd; do
            case $line in *'"PROTEUS_DISCONNECT"'*) : >told; exit 0;; esac
        done"#;
    let mut settings = shell_settings(script);
    settings["minUptime"] = json!(600_000); // nothing but its word makes it ready
    settings["listen"] = (0..6).map(|_| json!("127.0.0.1:0")).collect(); // the channel is at 9, which a shell can name
    let master = Master::run(&scene, &settings);
    wait_until("it has said hello", || scene.path("hello").exists());
    assert_still_starting(&master);
    scene.write("go", "");
    master.wait_one_ready();
    master.signal(libc::SIGTERM);
    master.ends_with(&scene, 0);
    assert!(scene.path("told").exists() && !scene.path("signalled").exists(), "the line alone told it");
}

#[test]
fn hello_is_a_promise_to_say_ready() {
    let scene = Scene::new("hello");
    let script = r#"echo '{"cmd":"PROTEUS_HELLO"}' >&$PROTEUS_CHANNEL_FD; : >said; exec sleep 1000"#;
    let mut settings = shell_settings(script);
    settings["minUptime"] = json!(300);
    settings["readyTimeout"] = json!(900);
    let master = Master::run(&scene, &settings);
    master.wait_log("worker 1 (slot 0) was not ready within 900 ms");
    assert!(!master.has_logged("worker 1 (slot 0) is ready"), "{}", master.log_text());
    master.stop(&scene);
}

#[test]
fn alive_for_min_uptime_when_nothing_is_said() {
    for ready in ["auto", "alive"] {
        let scene = Scene::new("alive");
        let mut settings = idle_settings();
        settings["ready"] = json!(ready);
        settings["minUptime"] = json!(300);
        let master = Master::run(&scene, &settings);
        master.wait_one_ready();
        let line = master.wait_log("worker 1 (slot 0) is ready after ");
        let after = line.split("after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        assert!(after.is_some_and(|after| after >= 300), "{line}");
        master.stop(&scene);
    }
}

#[test]
fn notify_mode_waits_and_then_times_out() {
    let scene = Scene::new("notify-time-out");
    let mut settings = must_say(idle_settings());
    settings["minUptime"] = json!(0);
    settings["readyTimeout"] = json!(100);
    settings["maxForkCount"] = json!(1);
    let mut master = Master::run(&scene, &settings);
    assert_eq!(master.wait_exit().code(), Some(3), "{}", master.log_text());
    for worker in [1, 2] {
        master.wait_log(&format!("worker {worker} (slot 0) was not ready within 100 ms; killing it"));
    }
    scene.assert_nothing_left();
}

/// Once the workers of a cluster have said ready, a release that is mute does not pass for ready.
#[test]
fn a_mute_release_is_caught() {
    let scene = Scene::new("mute");
    let speaks = "#!/bin/sh\necho '{\"cmd\":\"PROTEUS_READY\"}' >&$PROTEUS_CHANNEL_FD\nexec sleep 1000\n";
    let program = scene.write_program("worker.sh", speaks);
    let settings =
        json!({ "worker": 2, "exec": program, "minUptime": 600_000, "readyTimeout": 1500, "canary": 0 });
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    scene.write_program("worker.sh", "#!/bin/sh\nexec sleep 1000\n");
    master.signal(libc::SIGUSR2);
    let status = master.wait_status("aborted", |status| status["restart"]["state"] == "aborted");
    assert_eq!(status["restart"]["replaced"], 0);
    assert!(
        status["restart"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("not ready within 1500 ms"))
    );
    assert_eq!(master.wait_ready(2), first);
    master.stop(&scene);
}
