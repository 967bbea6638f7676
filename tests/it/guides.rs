//! The README's guides: programs of other languages as workers, each as the guide has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::guide;
use crate::harness::load::{Connections, Ledger, Load};
use crate::harness::tools::{in_path, peers};
use crate::harness::{Master, Scene, get, record, sample_or_full, skipped, wait_until};

const WSGI: &str = "
import os
def app(environ, start_response):
    body = b'pid=%d\\n' % os.getpid()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

const ASGI: &str = "
import asyncio, os, sys
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        while True:
            message = await receive()
            await send({'type': message['type'] + '.complete'})
            if message['type'] == 'lifespan.shutdown':
                return
    if scope['path'] == '/slow':
        print('pid %d works on a slow request' % os.getpid(), file=sys.stderr, flush=True)
        await asyncio.sleep(0.3)
    body = b'pid=%d\\n' % os.getpid()
    keep = (b'connection', b'keep-alive')
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'%d' % len(body)), keep]})
    await send({'type': 'http.response.body', 'body': body})
";

/// A guide's settings for a test in a hurry: an address and a program of its own.
fn settings(scene: &Scene, heading: &str, exec: &Path) -> Value {
    let mut settings = guide::settings(heading);
    settings["worker"] = json!(2);
    settings["exec"] = json!(exec);
    settings["listen"] = json!({ "name": "http", "address": scene.address(8080) });
    settings["canary"] = json!(20);
    settings
}

/// Rolling restarts under load; what became of each request.
fn roll(scene: &Scene, settings: &Value, kinds: &[Connections]) -> Ledger {
    let master = Master::run(scene, settings);
    master.wait_ready(2);
    let address = master.address("http");
    wait_until("it answers", || get(&address, "/").status == 200);
    let mut load = None;
    for kind in kinds {
        load = Some(match load.take() {
            None => Load::begin(&address, *kind, 2),
            Some(load) => Load::and(load, &address, *kind, 2),
        });
    }
    for id in 1..=sample_or_full(2, 10) {
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| {
            status["restart"]["id"] == id && status["restart"]["state"] == "completed"
        });
        master.wait_ready(2);
    }
    let ledger = load.expect("some load").end();
    record(&scene.tag, &ledger);
    assert_eq!(master.status()["forks"]["crashes"], 0, "{}", master.log_text());
    master.stop(scene);
    ledger
}

fn python(test: &str, program: &str) -> Option<PathBuf> {
    let installed = peers().join("python/bin").join(program);
    let found = in_path(program).or_else(|| Some(installed).filter(|program| program.is_file()));
    if found.is_none() {
        skipped(test, &format!("there is no {program} here: scripts/peers python"));
    }
    found
}

#[test]
fn gunicorn() {
    let Some(program) = python("gunicorn", "gunicorn") else { return };
    let scene = Scene::new("guide-gunicorn");
    scene.write("app.py", WSGI);
    let settings = settings(&scene, "Python: gunicorn", &program);
    roll(&scene, &settings, &[Connections::New]).assert_lossless();
}

/// None in hand is lost and none on a kept connection; what uvicorn drops unread is its own.
#[test]
fn uvicorn() {
    let Some(program) = python("uvicorn", "uvicorn") else { return };
    let scene = Scene::new("guide-uvicorn");
    scene.write("app.py", ASGI);
    let settings = settings(&scene, "Python: uvicorn", &program);
    roll(&scene, &settings, &[Connections::KeepAlive]).assert_lossless();
}

#[test]
fn uvicorn_finishes_the_request_in_hand() {
    let Some(program) = python("uvicorn_finishes", "uvicorn") else { return };
    let scene = Scene::new("guide-uvicorn-slow");
    scene.write("app.py", ASGI);
    let mut settings = settings(&scene, "Python: uvicorn", &program);
    settings["worker"] = json!(1);
    let master = Master::run(&scene, &settings);
    let pid = master.wait_one_ready();
    let address = master.address("http");
    let asked = std::thread::spawn(move || get(&address, "/slow").body);
    master.wait_log(&format!("pid {pid} works on a slow request"));
    master.signal(libc::SIGTERM);
    assert_eq!(asked.join().expect("answered"), format!("pid={pid}\n"));
    master.ends_with(&scene, 0);
}

#[test]
fn socketserver() {
    let Some(program) = in_path("python3") else {
        return skipped("socketserver", "there is no python3 here");
    };
    let scene = Scene::new("guide-socketserver");
    let mut settings = settings(&scene, "Python: socketserver", &program);
    settings["cwd"] = json!(guide::root());
    let master = Master::run(&scene, &settings);
    let mut left = master.wait_ready(2);
    let address = master.address("http");
    wait_until("both answer", || {
        let body = get(&address, "/").body;
        let pid = body.strip_prefix("hello from pid ").and_then(|pid| pid.trim().parse().ok());
        left.remove(&pid.expect("a pid"));
        left.is_empty()
    });
    master.stop(&scene);
}

#[test]
fn go() {
    let Some(go) = in_path("go") else { return skipped("go", "there is no go here") };
    let scene = Scene::new("guide-go");
    let source = scene.write("main.go", guide::block("Go", "go"));
    let program = scene.path("service");
    let built = Command::new(go)
        .args(["build", "-o"])
        .args([&program, &source])
        .env("GOCACHE", scene.path("cache"))
        .env("GO111MODULE", "off")
        .status();
    assert!(built.expect("go").success());
    let mut settings = settings(&scene, "Python: socketserver", &program);
    settings["args"] = json!([]);
    settings["minUptime"] = json!(200);
    roll(&scene, &settings, &[Connections::New]).assert_lossless();
}

/// Under `proteus run`: new connections and kept ones, nothing lost.
#[test]
fn axum_and_hyper() {
    for service in ["axum-service", "hyper-service"] {
        let program = peers().join("axum/debug").join(service);
        if !program.is_file() {
            skipped(service, "it is not built: scripts/peers axum");
            continue;
        }
        let scene = Scene::new(&format!("guide-{service}"));
        let mut settings = settings(&scene, "Python: socketserver", &program);
        settings["args"] = json!([]);
        settings["minUptime"] = json!(600_000); // nothing but its word makes it ready
        roll(&scene, &settings, &[Connections::New, Connections::KeepAlive]).assert_lossless();
    }
}

#[test]
fn a_shell_script() {
    let scene = Scene::new("guide-shell");
    let program = scene.write_program("worker.sh", &guide::block("A shell script", "sh"));
    let settings = json!({ "worker": 2, "exec": program, "minUptime": 600_000 });
    let master = Master::run(&scene, &settings);
    let first = master.wait_ready(2);
    let status = master.status();
    for row in status["workers"].as_array().expect("rows") {
        assert_eq!(row["messagesIn"], 1, "its hello to whoever listens: {row}");
    }
    master.signal(libc::SIGUSR2);
    master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
    assert!(first.is_disjoint(&master.wait_ready(2)));
    assert_eq!(master.status()["dropped"]["messages"], 0);
    master.stop(&scene);
}

#[test]
fn any_program_by_a_port() {
    let Some(program) = in_path("python3") else { return skipped("any_program", "there is no python3 here") };
    let scene = Scene::new("guide-port");
    let mut settings = guide::settings("Any program, by a port of its own");
    settings["exec"] = json!(program);
    settings["worker"] = json!(2);
    settings["minUptime"] = json!(100);
    let master = Master::run(&scene, &settings);
    master.wait_ready(2);
    for row in master.status()["workers"].as_array().expect("rows") {
        let address = format!("127.0.0.1:{}", row["port"]);
        wait_until("it serves there", || {
            crate::harness::try_get(&address, "/").is_ok_and(|answer| answer.status == 200)
        });
    }
    master.stop(&scene);
}

/// What the guides warn of: a shell in between. With `exec` the program itself is told to go; without, it is killed.
#[test]
fn a_wrapper_shell_must_exec() {
    for (wrapper, told) in [("exec sh -c \"$PROGRAM\"", true), ("sh -c \"$PROGRAM\"; :", false)] {
        let scene = Scene::new("guide-wrapper");
        let settings = json!({
            "worker": 1, "exec": "sh", "args": ["-c", wrapper], "minUptime": 300,
            "env": { "PROGRAM": "trap ': >told; exit 0' TERM; : >up; while :; do sleep 0.02; done" },
        });
        let master = Master::run(&scene, &settings);
        wait_until("the program runs", || scene.path("up").exists());
        master.wait_one_ready();
        master.signal(libc::SIGTERM);
        master.ends_with(&scene, 0);
        assert_eq!(scene.path("told").exists(), told, "{wrapper}");
    }
}
