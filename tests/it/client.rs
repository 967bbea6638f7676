//! The command line as a client of a running master: what it prints, and how it exits.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, shell_settings};
use crate::harness::{Master, Scene, eventually, proteus, sys, wait_until};

/// Fails while `bad` exists, is not ready before `go` exists, and does not go while `stay` exists.
const WORKER: &str = r#"[ -e bad ] && exit 7
until [ -e go ]; do sleep 0.02; done
trap 'while [ -e stay ]; do sleep 0.02; done; exit' TERM
echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD
while :; do sleep 0.02; done"#;

fn begin(scene: &Scene) -> Master {
    scene.write("go", "");
    let mut settings = shell_settings(WORKER);
    settings["ready"] = json!("notify");
    settings["canary"] = json!(0);
    let master = Master::run(scene, &settings);
    master.wait_one_ready();
    master
}

fn remove(scene: &Scene, name: &str) {
    std::fs::remove_file(scene.path(name)).expect("it is there");
}

/// `proteus WORDS` in the test's folder.
fn command(scene: &Scene, words: &[&str]) -> Command {
    let mut command = Command::new(proteus());
    command.args(words).current_dir(&scene.folder).env_remove("PROTEUS_TOKEN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its exit status, stdout and stderr.
fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().expect("an exit status"), text(&output.stdout), text(&output.stderr))
}

fn run(scene: &Scene, words: &[&str]) -> (i32, String, String) {
    outcome(&command(scene, words).output().expect("proteus runs"))
}

#[test]
fn a_restart_is_waited_for_step_by_step() {
    let scene = Scene::new("client-restart");
    let master = begin(&scene);
    let (code, out, err) = run(&scene, &["restart", "--api", "unix:api.sock"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.lines().last().is_some_and(|line| line.starts_with("restart completed in ")), "{out}");
    remove(&scene, "go");
    let slow = command(&scene, &["restart", "-c", "proteus.json"]).spawn().expect("proteus runs");
    master.wait_status("it runs", |status| status["restart"]["state"] == "running");
    let cut_short = run(&scene, &["restart", "-c", "proteus.json", "--timeout", "1s"]);
    let (still, goes_on) =
        ("restart 2: 0 of 1 workers replaced\n", "the restart still runs after 1s; it goes on");
    assert_eq!(cut_short, (1, still.into(), format!("proteus: {goes_on}\n")));
    scene.write("go", "");
    let (code, out, err) = outcome(&slow.wait_with_output().expect("it ends"));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("restart 2: 0 of 1 workers replaced\n"), "{out}");
    assert!(!out.contains('\r'), "a bar is for terminals: {out:?}");
    master.wait_status("the one that was cut short went on", |status| {
        status["restart"]["id"] == 3 && status["restart"]["state"] == "completed"
    });
    assert_eq!(
        run(&scene, &["restart", "--no-wait", "-c", "proteus.json"]),
        (0, "OK\n".into(), String::new())
    );
    master.wait_status("and so did this one", |status| {
        status["restart"]["id"] == 4 && status["restart"]["state"] == "completed"
    });
    master.stop(&scene);
}

#[test]
fn on_a_terminal_a_restart_draws_a_bar() {
    let scene = Scene::new("client-bar");
    let master = begin(&scene);
    remove(&scene, "go");
    let (mut ours, theirs) = sys::terminal();
    let mut command = command(&scene, &["restart", "-c", "proteus.json"]);
    let mut client = command.stdout(theirs).spawn().expect("proteus runs");
    // The command keeps its copy of the terminal until it is dropped.
    drop(command);
    let mut seen = String::new();
    wait_until("a bar", || read_some(&mut ours, &mut seen).contains(']'));
    scene.write("go", "");
    assert!(client.wait().expect("our child").success());
    wait_until("the end", || read_some(&mut ours, &mut seen).contains("restart completed in"));
    assert!(
        seen.starts_with("\r[------------------------] restart 1: 0 of 1 workers replaced\x1b[K"),
        "{seen:?}"
    );
    assert!(seen.contains("\r\x1b[Krestart completed in"), "the bar is wiped away: {seen:?}");
    master.stop(&scene);
}

fn read_some<'a>(terminal: &mut File, seen: &'a mut String) -> &'a str {
    let mut bytes = [0; 4096];
    let length = terminal.read(&mut bytes).expect("something to see");
    seen.push_str(std::str::from_utf8(&bytes[..length]).expect("UTF-8"));
    seen
}

#[test]
fn a_restart_that_fails_says_why_and_exits_with_1() {
    let scene = Scene::new("client-abort");
    let master = begin(&scene);
    scene.write("bad", "");
    let (code, _, err) = run(&scene, &["restart", "-c", "proteus.json"]);
    remove(&scene, "bad");
    assert_eq!(code, 1, "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines[0].starts_with("proteus: restart aborted: worker 2 died before it was ready"), "{err}");
    assert!(lines[0].ends_with("exit status 7; the old workers stay"), "{err}");
    assert!(lines[1].starts_with("  worker 2: boot-failed (exit status 7)"), "{err}");
    master.stop(&scene);
}

#[test]
fn a_shutdown_is_waited_for_and_can_be_forced() {
    let scene = Scene::new("client-shutdown");
    let master = begin(&scene);
    scene.write("stay", "");
    let shutdown = command(&scene, &["shutdown", "-c", "proteus.json"]).spawn().expect("proteus runs");
    master.wait_status("it has begun", |status| status["master"]["state"] == "shutting-down");
    let refused = (1, String::new(), "proteus: refused: a shutdown has begun\n".into());
    assert_eq!(run(&scene, &["restart", "--no-wait", "-c", "proteus.json"]), refused);
    let (code, _, err) = run(&scene, &["restart", "-c", "proteus.json"]);
    assert_eq!((code, err.as_str()), (1, "proteus: restart refused: a shutdown has begun\n"));
    let (code, out, err) = run(&scene, &["shutdown", "--force", "-c", "proteus.json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("shutdown completed in "), "{out}");
    let (code, _, err) = outcome(&shutdown.wait_with_output().expect("it ends"));
    assert_eq!(code, 1, "{err}");
    assert!(err.starts_with("proteus: shutdown forced: "), "{err}");
    master.ends_with(&scene, 1);
}

#[test]
fn a_graceful_shutdown_exits_with_0_when_all_is_over() {
    let scene = Scene::new("client-graceful");
    let mut master = begin(&scene);
    let (code, out, err) = run(&scene, &["shutdown", "-c", "proteus.json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(master.wait_exit().code(), Some(0));
    let (code, _, err) = run(&scene, &["shutdown", "-c", "proteus.json"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.starts_with("proteus: no master at unix:"), "{err}");
    master.ends_with(&scene, 0);
}

#[test]
fn the_status_is_a_table_or_json() {
    let scene = Scene::new("client-status");
    let master = Master::run(&scene, &idle_settings());
    let pid = master.wait_one_ready();
    let (code, out, _) = run(&scene, &["status", "-c", "proteus.json"]);
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("master {} running, generation 1, ", master.pid())), "{out}");
    let row = out.lines().last().expect("a worker").split_whitespace().collect::<Vec<_>>();
    assert_eq!(row[..5], ["1", "0", &pid.to_string(), "1", "ready"], "{out}");
    let (code, out, _) = run(&scene, &["status", "-c", "proteus.json", "--json"]);
    let status: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &status["workers"][0]["pid"]), (0, &json!(pid)));
    master.stop(&scene);
}

#[test]
fn the_number_of_workers_is_changed() {
    let scene = Scene::new("client-scale");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    assert_eq!(run(&scene, &["scale", "-c", "proteus.json", "3"]), (0, "OK\n".into(), String::new()));
    master.wait_ready(3);
    for (words, said) in [
        (&["scale", "-c", "proteus.json", "0"][..], "proteus: scale: 0 is out of range (1 to 4096)\n"),
        (&["scale", "-c", "proteus.json", "many"], "proteus: \"many\" is no number of workers\n"),
        (&["scale", "-c", "proteus.json"], "proteus: nothing to scale: `proteus scale N`\n"),
        (&["scale", "1", "2"], "proteus: unexpected word \"2\"\n"),
        (&["restart", "--tiemout", "3s"], "proteus: unknown flag --tiemout: did you mean --timeout?\n"),
        (
            &["restart", "--timeout", "soon"],
            "proteus: --timeout: \"soon\" is not a duration such as 1500, 1500ms, 30s or 5m\n",
        ),
    ] {
        assert_eq!(run(&scene, words), (2, String::new(), said.into()), "{words:?}");
    }
    master.stop(&scene);
}

/// Reads its channel, writes down what comes, and answers what is asked.
const READER: &str = r#"echo '{"cmd":"PROTEUS_HELLO"}' >&$PROTEUS_CHANNEL_FD
echo '{"cmd":"PROTEUS_READY"}' >&$PROTEUS_CHANNEL_FD
while read -r line; do
    echo "$line" >>heard
    case $line in
        *'"ask"'*) echo '{"cmd":"ask","msg":"hi"}' >&$PROTEUS_CHANNEL_FD ;;
        *PROTEUS_DISCONNECT*) exit ;;
    esac
done <&$PROTEUS_CHANNEL_FD"#;

#[test]
fn messages_go_to_the_workers_and_replies_come_back() {
    let scene = Scene::new("client-messages");
    let master = Master::run(&scene, &shell_settings(READER));
    master.wait_one_ready();
    let sent = run(&scene, &["send", "-c", "proteus.json", r#"{"cmd":"hello"}"#]);
    assert_eq!(sent, (0, "OK\n".into(), String::new()));
    let heard = || std::fs::read_to_string(scene.path("heard")).unwrap_or_default();
    wait_until("the worker has it", || heard() == "{\"cmd\":\"hello\"}\n");
    let asked = run(&scene, &["ask", "-c", "proteus.json", r#"{"cmd":"ask"}"#]);
    assert_eq!(asked, (0, "[\"hi\"]\n".into(), String::new()));
    for command in ["send", "ask"] {
        let (code, out, err) = run(&scene, &[command, "-c", "proteus.json", "{cmd:hello}"]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.starts_with("proteus: no JSON: "), "{err}");
        let (code, _, err) = run(&scene, &[command, "-c", "proteus.json", r#"{"cmd":"PROTEUS_DISCONNECT"}"#]);
        assert_eq!(code, 2, "{err}");
    }
    assert!(!heard().contains("DISCONNECT"), "{}", heard());
    master.stop(&scene);
}

#[test]
fn the_log_file_is_opened_anew() {
    let scene = Scene::new("client-reopen");
    let mut settings = idle_settings();
    settings["logFile"] = json!({ "path": scene.path("master.log") });
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    std::fs::rename(scene.path("master.log"), scene.path("master.log.1")).expect("the log file");
    assert_eq!(run(&scene, &["reopen", "-c", "proteus.json"]), (0, "OK\n".into(), String::new()));
    wait_until("there is a new one", || scene.path("master.log").exists());
    master.stop(&scene);
}

#[test]
fn over_tcp_with_a_token_from_the_file_or_the_environment() {
    let scene = Scene::new("client-tcp");
    let address = scene.address(8111);
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": address, "token": "s3cret" });
    let master = Master::run(&scene, &settings);
    master.wait_log("ready; API on");
    assert_eq!(run(&scene, &["status", "-c", "proteus.json", "--json"]).0, 0);
    let words = ["status", "--api", &address, "--json"];
    let (code, out, err) = run(&scene, &words);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("asks for a token: put it into PROTEUS_TOKEN"), "{err}");
    let with_token = |token| {
        outcome(&command(&scene, &words).env("PROTEUS_TOKEN", token).output().expect("proteus runs")).0
    };
    assert_eq!(["wrong", "s3cret", "s3cret\r\nX: y"].map(with_token), [2, 0, 2]);
    master.stop(&scene);
}

#[test]
fn without_a_master_that_answers_one_line_says_so() {
    let scene = Scene::new("client-nobody");
    let address = scene.address(8111);
    let refused = |words: &[&str]| {
        let (code, out, err) = run(&scene, words);
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{words:?}: {err}");
        err
    };
    for words in [&["restart"][..], &["restart", "--no-wait"], &["shutdown"], &["scale", "2"], &["status"]] {
        let words = [words, &["--api", &address]].concat();
        let line = refused(&words);
        assert!(line.starts_with(&format!("proteus: no master at {address}: connection refused")), "{line}");
    }
    scene.write("no-api.json", r#"{"exec": "true"}"#);
    assert!(refused(&["status", "-c", "no-api.json"]).contains("no `api`"));
    scene.write("any-port.json", r#"{"exec": "true", "api": {"port": 0}}"#);
    assert!(refused(&["status", "-c", "any-port.json"]).contains("`api.port` is 0"));
    assert!(refused(&["status", "-c", "missing.json"]).contains("missing.json"));
}

#[test]
fn one_who_takes_the_call_and_says_nothing_sensible() {
    let scene = Scene::new("client-nonsense");
    let address = scene.address(8111);
    let listener = TcpListener::bind(&address).expect("a port of our own");
    let client = command(&scene, &["status", "--api", &address]).spawn().expect("proteus runs");
    drop(eventually("a call", || listener.accept().ok()));
    let (code, out, err) = outcome(&client.wait_with_output().expect("it ends"));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("broke off"), "{err}");
}
