//! The page of the module that this crate reimagines, as it is printed: its settings as JSON, its worker.js, its
//! ways to restart and to stop.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::load::{Connections, Load};
use crate::harness::master::ready_pids;
use crate::harness::tools::{free_port, in_path, peers, with_each_node};
use crate::harness::{Master, Scene, eventually, get, record, sample_or_full, skipped, try_get, wait_until};

const EXPRESS: &str = "\
var express = require('express');
var app = express();
var port = 8080;
app.configure(function() {
    app.get('/', function(req, res) {
        res.send('running worker '+process.pid);
    });
});
app.listen(port);
";

const PLAIN: &str = "\
var http = require('http');
var port = 8080;
http.createServer(function(req, res) {
    res.end('running worker '+process.pid);
}).listen(port);
";

/// The page's cluster under `proteus run --config`. Its ports are every test's; these are this one's own.
struct Page {
    scene: Scene,
    master: Master,
    service: String,
    api: String,
}

impl Page {
    fn begin(name: &str, worker: &str, path: &OsStr) -> Self {
        let scene = Scene::new(name);
        let (port, api) = (free_port(), free_port());
        scene.write("worker.js", worker.replace("port = 8080", &format!("port = {port}")));
        let modules = peers().join("express/node_modules");
        if modules.exists() {
            std::os::unix::fs::symlink(modules, scene.path("node_modules")).expect("a link");
        }
        let settings = json!({
            "worker": 4,
            "pid": scene.path("proteus.pid"),
            "exec": "worker.js",
            "args": ["-c", "config.json"],
            "disconnectTimeout": 5000,
            "maxForkCount": 30,
            "api": { "listen": "0.0.0.0", "port": api },
            // Not on the page: the test is in a hurry.
            "canary": 20,
        });
        let mut command = Master::command(&scene, &settings);
        command.env("PATH", path);
        let master = Master::start(&scene, command);
        let at = |port| format!("127.0.0.1:{port}");
        Page { scene, master, service: at(port), api: at(api) }
    }

    fn status(&self) -> Option<Value> {
        serde_json::from_str(&try_get(&self.api, "/status").ok()?.body).ok()
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let condition = |status: &Value| {
            condition(status) && ready_pids(status).len() == 4 && status["workers"][4].is_null()
        };
        eventually(what, || self.status().filter(condition))
    }

    #[track_caller]
    fn restarted(&self, id: u64) -> Value {
        self.wait(&format!("restart {id}"), |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        })
    }

    fn finish(self) {
        assert_eq!(get(&self.api, "/shutdown").body, "OK");
        self.master.ends_with(&self.scene, 0);
        assert!(!self.scene.path("proteus.pid").exists());
    }
}

fn answers(page: &Page) {
    let status = page.wait("four are ready", |_| true);
    let mut left = ready_pids(&status);
    // One that is slow to begin is ready by its age, before it listens.
    wait_until("each worker answers", || {
        let Ok(answer) = try_get(&page.service, "/") else { return false };
        let pid = answer.body.strip_prefix("running worker ").and_then(|pid| pid.parse().ok());
        left.remove(&pid.expect("a pid"));
        left.is_empty()
    });
    let pid = std::fs::read_to_string(page.scene.path("proteus.pid")).expect("a pid file");
    assert_eq!(pid.trim(), page.master.pid().to_string());
}

/// By curl and by signal; nothing is lost meanwhile.
fn restarts(page: &Page, connections: &[Connections]) {
    let before = ready_pids(&page.wait("four are ready", |_| true));
    let (first, others) = connections.split_first().expect("some");
    let load = Load::begin(&page.service, *first, 2);
    let load = others.iter().fold(load, |load, kind| load.and(&page.service, *kind, 2));
    let rounds = u64::try_from(sample_or_full(1, 10)).expect("a few");
    for round in 0..rounds {
        assert_eq!(get(&page.api, "/restart").body, "OK");
        page.restarted(2 * round + 1);
        page.master.signal(libc::SIGUSR2);
        page.restarted(2 * round + 2);
    }
    let ledger = load.end();
    record("the page's worker", &ledger);
    ledger.assert_lossless();
    let status = page.restarted(2 * rounds);
    assert!(before.is_disjoint(&ready_pids(&status)));
    assert_eq!(status["forks"]["crashes"], 0, "{}", page.master.log_text());
    assert_eq!(status["forks"]["planned"], 8 * rounds);
    assert_eq!(status["forks"]["budgetLeft"], 30);
}

#[test]
fn plain_http_and_a_rolling_restart_under_load() {
    let Some(node) = in_path("node") else { return skipped("plain_http", "there is no node here") };
    let page = Page::begin("page-plain", PLAIN, &path_of(&node));
    answers(&page);
    restarts(&page, &[Connections::New, Connections::KeepAlive]);
    page.finish();
}

/// A busy kept connection holds an old Node until the time-out, whoever its master is. A new Node closes connections
/// that it has accepted and not read yet, whoever its master is. Each is tried with what it can do.
#[test]
fn every_node_restarts_under_load() {
    with_each_node("every_node_restarts_under_load", |path| {
        let page = Page::begin("page-nodes", PLAIN, path);
        answers(&page);
        let kind =
            if drops_the_unread(&page.scene, path) { Connections::KeepAlive } else { Connections::New };
        restarts(&page, &[kind]);
        page.finish();
    });
}

/// Whether a server of this Node that closes drops a connection whose request has not come yet.
fn drops_the_unread(scene: &Scene, path: &OsStr) -> bool {
    const PROBE: &str = "
        var net = require('net'), server = require('http').createServer(function (request, response) { response.end(); });
        server.listen(0, '127.0.0.1', function () {
          var client = net.connect(server.address().port, '127.0.0.1'), answer = '';
          client.on('data', function (data) { answer += data; });
          client.on('error', function () {});
          client.on('close', function () { process.exit(answer ? 0 : 7); });
          server.on('connection', function () {
            setImmediate(function () {
              server.close();
              setTimeout(function () { client.write('GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'); }, 20);
            });
          });
        });";
    let probe = scene.write("probe.js", PROBE);
    let status = Command::new("env").arg("node").arg(probe).env("PATH", path).status().expect("node");
    match status.code() {
        Some(0) => false,
        Some(7) => true,
        _ => panic!("the probe: {status}"),
    }
}

#[test]
fn express_as_printed() {
    let Some(node) = in_path("node") else { return skipped("express_as_printed", "there is no node here") };
    if !peers().join("express/node_modules/express").exists() {
        return skipped("express_as_printed", "there is no express here: scripts/peers express");
    }
    let page = Page::begin("page-express", EXPRESS, &path_of(&node));
    answers(&page);
    restarts(&page, &[Connections::New, Connections::KeepAlive]);
    page.finish();
}

/// `kill -9` of a worker, and the two ways to stop in earnest.
#[test]
fn a_crash_is_replaced_and_force_is_force() {
    let Some(node) = in_path("node") else { return skipped("a_crash_is_replaced", "there is no node here") };
    let page = Page::begin("page-crash", PLAIN, &path_of(&node));
    let first = ready_pids(&page.wait("four are ready", |_| true));
    let victim = *first.first().expect("four");
    crate::harness::sys::kill(victim, libc::SIGKILL);
    let status = page.wait("replaced", |status| status["forks"]["crashes"] == 1);
    assert!(!ready_pids(&status).contains(&victim));
    assert_eq!(get(&page.api, "/force_shutdown").body, "OK");
    page.master.ends_with(&page.scene, 1);
}

fn path_of(node: &Path) -> OsString {
    let folder = node.parent().expect("a folder");
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).expect("no colon in it")
}
