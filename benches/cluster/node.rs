//! The same Node worker under this master, under Node's own `cluster` module and, where it is there, under the npm
//! module whose page this crate reimagines: requests a second and memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::median;
use crate::process;
use crate::requests::free_address;
use crate::stage::{Running, Stage};

/// Enough that chance spreads kept connections over the workers about as evenly as turns would.
const CLIENTS: usize = 32;
/// Short, so that both of a pair meet the same weather.
const WINDOW: Duration = Duration::from_millis(250);
const ROUNDS: usize = 24;

const WORKER: &str = "
require('http').createServer(function (request, response) {
  response.writeHead(200, { 'Content-Length': 3 });
  response.end('ok\\n');
}).listen(+process.env.PORT, '127.0.0.1');
";

const CLUSTER_MASTER: &str = "
var cluster = require('cluster');
cluster.setupMaster({ exec: __dirname + '/worker.js' });
for (var i = 0; i < +process.env.WORKERS; i++) cluster.fork();
";

/// The npm module's master; `args` must be an array, or old Nodes lose the workers' environment.
const MODULE_MASTER: &str = "
require(process.env.MODULE)({ worker: +process.env.WORKERS, exec: __dirname + '/worker.js', args: [] });
";

/// Who starts the same worker.
#[derive(Clone, Debug)]
enum Master {
    Cluster,
    /// The npm module, in this folder with what it depends on.
    Module(PathBuf),
}

impl Master {
    fn name(&self) -> &'static str {
        match self {
            Master::Cluster => "its cluster",
            Master::Module(_) => "the module",
        }
    }
}

/// Whether each request has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    New,
    Kept,
}

/// Node as it is installed, and the old one that the page's module was made for, where `scripts/peers` has put it.
/// `PROTEUS_BENCH_MODULE` names the folder of the module itself; it restarts crashed workers on Node 8 and older only.
pub(crate) fn cluster() {
    let module = std::env::var_os("PROTEUS_BENCH_MODULE").map(|folder| Master::Module(folder.into()));
    if module.is_none() {
        println!("PROTEUS_BENCH_MODULE is not set: the npm module is skipped");
    }
    let masters: Vec<Master> = std::iter::once(Master::Cluster).chain(module).collect();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/node8/node_modules/.bin/node");
    for node in [PathBuf::from("node"), old] {
        let Some(version) = version(&node) else {
            println!("{} is not here: skipped", node.display());
            continue;
        };
        for (master, workers) in masters.iter().flat_map(|master| [(master, 2), (master, 4)]) {
            pair(&node, &version, master, workers);
        }
    }
}

fn version(node: &Path) -> Option<String> {
    let output = Command::new(node).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn pair(node: &Path, version: &str, master: &Master, workers: usize) {
    let (ours, theirs) = (Server::ours(node, workers), Server::theirs(node, master, workers));
    let against = master.name();
    for (kind, words) in [(Connections::New, "new connections"), (Connections::Kept, "keep-alive")] {
        let (mut rates, mut their_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Whoever comes second may find the machine warmer.
            let (rate, their_rate) = if round % 2 == 0 {
                let rate = ours.rate(kind);
                (rate, theirs.rate(kind))
            } else {
                let their_rate = theirs.rate(kind);
                (ours.rate(kind), their_rate)
            };
            rates.push(rate);
            their_rates.push(their_rate);
            ratios.push(rate / their_rate);
        }
        let (rate, their_rate, ratio) = (median(&mut rates), median(&mut their_rates), median(&mut ratios));
        let what = format!("Node {version}, {against}, {workers} workers, {words}: requests/s");
        println!("{what:<58} {rate:>12.0} {their_rate:>12.0} {ratio:>7.3}  > 1");
    }
    let memory = |server: &Server| {
        u32::try_from(process::private_memory(server.running.0.id()) >> 10).expect("below 4 TiB")
    };
    let (kib, their_kib) = (memory(&ours), memory(&theirs));
    let ratio = f64::from(kib) / f64::from(their_kib);
    let what = format!("Node {version}, {against}, {workers} workers: private KiB of the master");
    println!("{what:<58} {kib:>12} {their_kib:>12} {ratio:>7.3}  < 1");
}

struct Server {
    at: SocketAddr,
    running: Running,
    _stage: Stage,
}

impl Server {
    fn ours(node: &Path, workers: usize) -> Self {
        let (stage, at) = (Stage::new("node"), free_address());
        let worker = stage.path("worker.js");
        std::fs::write(&worker, WORKER).expect("a file");
        let settings = json!({
            "worker": workers,
            "exec": node,
            "args": [worker],
            "env": { "PORT": at.port().to_string() },
        });
        let file = stage.path("proteus.json");
        std::fs::write(&file, settings.to_string()).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_proteus"));
        command.arg("run").arg("--config").arg(file).env("RUST_LOG", "off");
        Server::started(stage, at, &mut command)
    }

    fn theirs(node: &Path, master: &Master, workers: usize) -> Self {
        let (stage, at) = (Stage::new("node-cluster"), free_address());
        std::fs::write(stage.path("worker.js"), WORKER).expect("a file");
        let mut command = Command::new(node);
        command.arg(stage.path("master.js"));
        let script = match master {
            Master::Cluster => CLUSTER_MASTER,
            Master::Module(folder) => {
                command.env("MODULE", folder).stdout(Stdio::null());
                MODULE_MASTER
            }
        };
        std::fs::write(stage.path("master.js"), script).expect("a file");
        command.env("PORT", at.port().to_string()).env("WORKERS", workers.to_string());
        Server::started(stage, at, &mut command)
    }

    fn started(stage: Stage, at: SocketAddr, command: &mut Command) -> Self {
        let running = Running(command.stdin(Stdio::null()).spawn().expect("it starts"));
        let within = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(at).is_err() {
            assert!(Instant::now() < within, "it never listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_secs(1)); // the other workers
        let server = Server { at, running, _stage: stage };
        server.rate(Connections::New); // and warmth for all
        server.rate(Connections::Kept);
        server
    }

    /// Requests a second by a closed loop of clients.
    fn rate(&self, kind: Connections) -> f64 {
        let began = Instant::now();
        let client = || {
            let (mut count, mut kept) = (0u32, None);
            while began.elapsed() < WINDOW {
                let mut stream =
                    kept.take().unwrap_or_else(|| TcpStream::connect(self.at).expect("connected"));
                request(&mut stream, kind);
                kept = (kind == Connections::Kept).then_some(stream);
                count += 1;
            }
            count
        };
        let count: u32 = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().map(|client| client.join().expect("no panic")).sum()
        });
        f64::from(count) / began.elapsed().as_secs_f64()
    }
}

fn request(stream: &mut TcpStream, kind: Connections) {
    let wish = if kind == Connections::New { "Connection: close\r\n" } else { "" };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{wish}\r\n").as_bytes()).expect("written");
    let (mut answer, mut length) = ([0; 512], 0);
    while !answer[..length].ends_with(b"\r\n\r\nok\n") {
        let count = stream.read(&mut answer[length..]).expect("read");
        assert!(count > 0, "cut: {}", String::from_utf8_lossy(&answer[..length]));
        length += count;
    }
}
