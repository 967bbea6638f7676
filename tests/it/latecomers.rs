//! Who comes during a shutdown is refused at once, not left to wait for a reset; who came before is served.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::master::role_settings;
use crate::harness::{Master, Scene, proteus, wait_until};

/// A client of one of the listeners.
struct Client(Box<dyn Read>);

impl Client {
    #[track_caller]
    fn gets_its_answer(mut self) {
        self.0.read_exact(&mut [0]).expect("answered, not reset");
    }
}

/// The listeners of every kind that have a queue.
struct Kinds {
    tcp: Vec<String>,
    path: PathBuf,
}

impl Kinds {
    fn of(scene: &Scene, master: &Master) -> Self {
        let tcp = ["http", "both", "slots"].map(|name| master.address(name).replace("[::]", "127.0.0.1"));
        let tcp = tcp.into_iter().chain([scene.address(8080)]).collect();
        Kinds { tcp, path: scene.path("admin.sock") }
    }

    fn connect(&self) -> Vec<io::Result<Client>> {
        let limit = Some(Duration::from_secs(20));
        let tcp = self.tcp.iter().map(|address| {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(limit)?;
            Ok(Client(Box::new(stream)))
        });
        let unix = UnixStream::connect(&self.path).and_then(|stream| {
            stream.set_read_timeout(limit)?;
            Ok(Client(Box::new(stream)))
        });
        tcp.chain([unix]).collect()
    }

    #[track_caller]
    fn connected(&self) -> Vec<Client> {
        self.connect().into_iter().map(|client| client.expect("connected")).collect()
    }
}

fn settings(scene: &Scene, role: &str) -> Value {
    let mut settings = role_settings(role);
    settings["worker"] = json!(1);
    settings["canary"] = json!(0);
    settings["disconnectTimeout"] = json!(60_000);
    settings["env"]["PROTEUS_TEST_ADDRESS"] = json!(scene.address(8080));
    settings["listen"] = json!([
        { "name": "http", "address": "127.0.0.1:0" },
        { "name": "both", "address": "[::]:0" },
        { "name": "slots", "address": "127.0.0.1:0", "reusePort": true },
        { "name": "admin", "address": "unix:admin.sock" },
    ]);
    settings
}

fn in_hand(master: &Master) -> usize {
    master.log_lines().iter().filter(|line| line.contains("a connection in hand")).count()
}

/// The workers keep their copies of every listener to the end.
#[test]
fn are_refused_while_work_is_in_hand() {
    let scene = Scene::new("late");
    let master = Master::run(&scene, &settings(&scene, "in-hand"));
    master.wait_one_ready();
    let kinds = Kinds::of(&scene, &master);
    let early = kinds.connected();
    wait_until("all are in hand", || in_hand(&master) == early.len());
    master.signal(libc::SIGTERM);
    master.wait_log("shutting down");
    wait_until("the path is gone", || !kinds.path.exists());
    for _ in 0..20 {
        let began = Instant::now();
        for late in kinds.connect() {
            let refusal = late.err().map(|error| error.kind());
            assert!(
                matches!(refusal, Some(ErrorKind::ConnectionRefused | ErrorKind::NotFound)),
                "{refusal:?}"
            );
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    scene.write("go", "");
    early.into_iter().for_each(Client::gets_its_answer);
    master.ends_with(&scene, 0);
}

/// What waited in a queue by then belongs to the workers, however late they come to it.
#[test]
fn take_nothing_from_those_who_wait_in_a_queue() {
    let scene = Scene::new("late-queue");
    let master = Master::run(&scene, &settings(&scene, "in-hand:late"));
    master.wait_one_ready();
    let kinds = Kinds::of(&scene, &master);
    let early: Vec<Client> = (0..20).flat_map(|_| kinds.connected()).collect();
    master.signal(libc::SIGTERM);
    wait_until("refused", || kinds.connect().iter().all(Result::is_err));
    scene.write("go", "");
    early.into_iter().for_each(Client::gets_its_answer);
    master.ends_with(&scene, 0);
}

/// An address that no worker asks for any more, while an old worker is still at work.
#[test]
fn are_refused_where_a_restart_has_left_an_address() {
    let scene = Scene::new("late-address");
    let master = Master::run(&scene, &settings(&scene, "in-hand"));
    let first = master.wait_one_ready();
    let early = Client(Box::new(TcpStream::connect(scene.address(8080)).expect("connected")));
    wait_until("it is in hand", || in_hand(&master) == 1);
    scene.write("quiet", "");
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    let late = TcpStream::connect(scene.address(8080)).map_err(|error| error.kind());
    assert!(matches!(late, Err(ErrorKind::ConnectionRefused)), "{late:?}");
    assert!(crate::harness::proc::is_alive(first), "it is still at work");
    scene.write("go", "");
    early.gets_its_answer();
    master.stop(&scene);
}

/// It is systemd's: its next start serves what comes meanwhile.
#[test]
fn wait_for_the_next_start_where_the_listener_was_handed_over() {
    let scene = Scene::new("late-adopted");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let mut settings = settings(&scene, "in-hand");
    settings["listen"] = json!({ "name": "http", "address": address.to_string() });
    drop(Master::command(&scene, &settings)); // writes the settings
    let mut command = Command::new("sh");
    let script = "exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" run --config proteus.json";
    command.args(["-c", script]).arg(proteus());
    command.stdin(OwnedFd::from(listener.try_clone().expect("a copy"))).stderr(std::process::Stdio::piped());
    let master = Master::start_as_is(&scene, command);
    master.wait_one_ready();
    let early = Client(Box::new(TcpStream::connect(address).expect("connected")));
    wait_until("it is in hand", || in_hand(&master) == 1);
    master.signal(libc::SIGTERM);
    master.wait_log("shutting down");
    let _late = TcpStream::connect(address).expect("not refused");
    scene.write("go", "");
    early.gets_its_answer();
    master.ends_with(&scene, 0);
    let waits = TcpStream::connect(address).and_then(|stream| stream.local_addr()).expect("it still listens");
    listener.set_nonblocking(true).expect("set");
    wait_until("the next one has it", || listener.accept().is_ok_and(|(_, from)| from == waits));
}
