//! The log: nobody waits for whoever reads it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::master::{role_command, role_settings, shell_settings, shell_workers};
use crate::harness::{Master, Scene, eventually, proc, wait_until};

/// A worker that makes the master log without end: not one of its lines is JSON.
const CHATTER: &str = "eval \"exec 1>&$PROTEUS_CHANNEL_FD\"; while :; do echo nonsense; done";

#[test]
fn a_stopped_reader_of_stderr_stops_nothing() {
    let scene = Scene::new("stopped-reader");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Master::command(&scene, &shell_workers(1, CHATTER));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let master = Master::start_as_is(&scene, command);
    // A line of the log for each thousand or so; many times more than the pipe takes.
    master.wait_status("lines enough", |status| status["dropped"]["messages"].as_u64() > Some(400_000));
    master.wait_one_ready();
    master.stop(&scene);
    drop(reader);
}

#[test]
fn a_reader_of_stderr_that_leaves_stops_nothing() {
    let scene = Scene::new("gone-reader");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Master::command(&scene, &shell_workers(1, "exec sleep 1000"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let master = Master::start_as_is(&scene, command);
    master.wait_one_ready();
    master.wait_status("the lost lines", |status| status["dropped"]["logLines"].as_u64() > Some(0));
    master.stop(&scene);
}

#[test]
fn an_end_writes_what_is_queued() {
    let scene = Scene::new("last-lines");
    let config = scene
        .write("c.json", r#"{ "worker": 1, "exec": "sh", "args": ["-c", "exit 7"], "maxForkCount": 0 }"#);
    let output = Command::new(crate::harness::proteus())
        .args(["run", "--config"])
        .arg(config)
        .env(proc::TAG, &scene.tag)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(log.lines().last().is_some_and(|line| line.contains("giving up")), "{log}");
}

/// `yes`, and a reader of the log that stands still: drops, counted to the line.
#[test]
fn a_flood_on_stdout_starves_nobody_and_its_drops_are_counted_exactly() {
    const LINES: u64 = 3_000_000;
    let scene = Scene::new("flood");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let script = format!("yes | head -n {LINES}; touch done; exec sleep 1000");
    let mut settings = shell_workers(1, &script);
    settings["output"] = "log".into();
    let mut command = Master::command(&scene, &settings);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let master = Master::start_as_is(&scene, command);
    master.wait_one_ready();
    let before = proc::resident(master.pid());
    wait_until("the whole flood", || {
        let asked = Instant::now();
        let looked = master.try_status().is_some();
        assert!(asked.elapsed() < Duration::from_secs(2), "a status took {:?}", asked.elapsed());
        let grown = proc::resident(master.pid()).saturating_sub(before);
        assert!(grown < 32 << 20, "grown by {grown} bytes");
        looked && scene.path("done").exists()
    });
    let dropped = settled_drops(&master);
    assert!(dropped > LINES / 2, "{dropped}");
    let log = read_on(reader);
    let count = |what: fn(&str) -> u64| log.lock().unwrap().iter().map(|line| what(line)).sum::<u64>();
    wait_until("the log's word on it", || count(told) >= dropped);
    wait_until("all other lines", || count(is_y) + dropped >= LINES);
    master.stop(&scene);
    assert_eq!(
        (count(is_y) + dropped, count(told)),
        (LINES, dropped),
        "each line was written, or dropped and told"
    );
}

fn read_on(reader: std::io::PipeReader) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
    log
}

fn is_y(line: &str) -> u64 {
    line.ends_with("): y").into()
}

/// The count in a line that tells of dropped ones.
fn told(line: &str) -> u64 {
    let count = line.split_once("log lines dropped: ").and_then(|(_, rest)| rest.split(';').next());
    count.map_or(0, |count| count.parse().expect("a count"))
}

/// The count of dropped lines once it stands still: what was in the pipe has been taken.
fn settled_drops(master: &Master) -> u64 {
    let count = || master.status()["dropped"]["logLines"].as_u64().expect("a count");
    let mut last = (count(), Instant::now());
    eventually("a count that stands still", || {
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(300)).then_some(now)
    })
}

#[test]
fn captured_lines_are_whole_safe_and_named() {
    let scene = Scene::new("captured");
    let script = r"printf 'one\r\n\033[31mred\0\377\n' >&2
        printf '[2026-01-01T00:00:00Z ERROR forged] x\nsplit '; sleep 0.1; printf 'late\n'
        head -c 20000 /dev/zero | tr '\0' 'z'; exit 3";
    let mut settings = shell_settings(script);
    settings["output"] = "log".into();
    settings["maxForkCount"] = 0.into();
    let mut master = Master::run(&scene, &settings);
    let pid = master.wait_log(": one").split_once("(pid ").expect("named").1.to_owned();
    let pid = pid.split(')').next().expect("a pid");
    let status = master.wait_exit();
    assert_eq!(status.code(), Some(3));
    let log = master.wait_log("giving up") + "\n" + &master.log_text();
    let said = |level: &str, target: &str, text: &str| {
        let line = format!(" {level} {target}] worker 1 (pid {pid}): {text}");
        assert!(log.lines().any(|found| found.ends_with(&line)), "no line {line:?} in\n{log}");
    };
    said("WARN ", "worker::stderr", "one");
    said("WARN ", "worker::stderr", "\\u{1b}[31mred\\0\u{fffd}");
    said("INFO ", "worker::stdout", "[2026-01-01T00:00:00Z ERROR forged] x");
    said("INFO ", "worker::stdout", "split late");
    let lengths: Vec<usize> = log.lines().filter(|line| line.ends_with("zz")).map(z_count).collect();
    assert_eq!(lengths, [8192, 8192, 20000 - 2 * 8192], "an over-long line, and a last one without its end");
}

fn z_count(line: &str) -> usize {
    line.matches('z').count()
}

#[test]
fn the_last_lines_on_stderr_stand_in_the_status() {
    let scene = Scene::new("last-stderr");
    let script =
        "i=0; while [ $i -lt 3000 ]; do echo line $i of sixty kilobytes >&2; i=$((i+1)); done; kill -ABRT $$";
    let mut settings = shell_settings(script);
    settings["output"] = "log".into();
    settings["backoff"] = serde_json::json!({ "initial": 60000, "max": 60000 });
    let master = Master::run(&scene, &settings);
    let status = master.wait_status("the second end", |status| status["forks"]["crashes"] == 2);
    let last = &status["workers"][0]["lastExit"];
    assert_eq!((&last["cause"], &last["signal"]), (&"boot-failed".into(), &libc::SIGABRT.into()));
    let lines = last["stderr"].as_array().expect("lines");
    assert_eq!((lines.len(), lines[19].as_str()), (20, Some("line 2999 of sixty kilobytes")));
    for worker in [1, 2] {
        master.wait_log(&format!("worker {worker} (slot 0) died"));
        for line in 0..3000 {
            let text = format!("): line {line} of sixty kilobytes");
            let name = format!("worker {worker} (pid ");
            assert!(
                master.log_lines().iter().any(|found| found.ends_with(&text) && found.contains(&name)),
                "{text}"
            );
        }
    }
    master.stop(&scene);
}

#[test]
fn a_grandchild_that_holds_the_pipes_delays_no_reap() {
    let scene = Scene::new("grandchild");
    let mut settings = shell_settings("setsid sh -c 'while :; do echo still here; done' & sleep 0.2; exit 4");
    settings["output"] = "log".into();
    settings["backoff"] = serde_json::json!({ "initial": 60000, "max": 60000 });
    let master = Master::run(&scene, &settings);
    let status = master.wait_status("two ends", |status| status["forks"]["crashes"] == 2);
    assert_eq!(status["workers"][0]["lastExit"]["code"], 4);
    let open = proc::open_files(master.pid());
    assert!(open.values().filter(|target| target.starts_with("pipe:")).count() <= 2, "{open:?}");
    master.stop(&scene);
}

/// Settings whose workers log as they are told to.
fn logging(what: &str) -> Value {
    let mut settings = role_settings(&format!("logs:{what}"));
    settings["worker"] = 1.into();
    settings["backoff"] = json!({ "initial": 60_000, "max": 60_000 });
    settings
}

#[test]
fn records_of_workers_reach_the_masters_log() {
    let scene = Scene::new("records");
    let mut command = Master::command(&scene, &logging("all-kinds"));
    command.env("RUST_LOG", "debug,quiet=off");
    let mut master = Master::start(&scene, command);
    let pid = master.wait_one_ready();
    let name = format!("worker 1 (pid {pid}): ");
    let said = |level: &str, target: &str, text: &str| {
        let line = format!(" {level} {target}] {name}{text}");
        assert!(master.wait_log(&line).ends_with(&line), "{line}");
    };
    said("INFO ", "it::roles::logs", "before it is a worker");
    said("ERROR", "it::roles::logs", "an error\\n[forged] \\u{1b}[31m");
    said("WARN ", "app::db", "with key-values n=-3 ok=true who=a\\nb");
    said("DEBUG", "it::roles::logs", "debug is on");
    let long = master.wait_log("xxx");
    assert_eq!(long.matches('x').count(), 64 << 10, "a message that is too long is cut");
    assert!(!master.has_logged("filtered by RUST_LOG"));
    master.signal(libc::SIGTERM);
    assert_eq!(master.wait_exit().code(), Some(0));
    master.wait_log("the last line of worker 1");
    scene.assert_nothing_left();
}

#[test]
fn a_panic_reaches_the_log_by_both_ways() {
    let scene = Scene::new("panic-record");
    let master = Master::run(&scene, &logging("panic"));
    let line = master.wait_log("lost\\nits head");
    assert!(line.contains(" ERROR panic] worker 1 (pid "), "{line}");
    assert!(line.contains("thread 'fatal' panicked at tests/it/roles/logs.rs:"), "{line}");
    // The hook that was there had its turn.
    assert!(master.wait_log("its head").contains("its head"));
    let status = master.wait_status("its end", |status| status["workers"][0]["lastExit"]["code"] == 101);
    assert!(status["workers"][0]["lastExit"]["stderr"].to_string().contains("thread 'fatal'"), "{status}");
    master.stop(&scene);
}

#[test]
fn sixty_kilobytes_and_an_abort() {
    let scene = Scene::new("abort");
    let master = Master::run(&scene, &logging("abort"));
    let status = master.wait_status("its end", |status| status["forks"]["crashes"] == 2);
    assert_eq!(status["workers"][0]["lastExit"]["signal"], libc::SIGABRT);
    for number in 0..1000 {
        master.wait_log(&format!(": number {number} of many"));
    }
    master.stop(&scene);
}

#[test]
fn what_is_logged_just_before_the_exit_comes_in_order() {
    let scene = Scene::new("in-order");
    let master = Master::run(&scene, &logging("in-order"));
    master.wait_status("its end", |status| status["workers"][0]["lastExit"]["code"] == 7);
    master.wait_log(": line 1999");
    let numbers = |text: &str| text.rsplit_once(": line ").and_then(|(_, number)| number.parse::<u32>().ok());
    let lines = master.log_lines();
    let first =
        lines.iter().filter(|line| line.contains("] worker 1 (pid ")).filter_map(|line| numbers(line));
    assert_eq!(first.collect::<Vec<_>>(), (0..2000).collect::<Vec<_>>());
    master.stop(&scene);
}

#[test]
fn any_language_logs_with_a_line() {
    let scene = Scene::new("foreign-log");
    let script = r#"exec 3>&$PROTEUS_CHANNEL_FD; printf '%s\n' '{"cmd":"PROTEUS_LOG","message":"plain\u0007"}' \
        '{"cmd":"PROTEUS_LOG","level":"warning","target":"shop","message":"sold out","kv":{"left":0}}' \
        '{"cmd":"PROTEUS_LOG"}' >&3; exec sleep 1000"#;
    let master = Master::run(&scene, &shell_workers(1, script));
    let line = master.wait_log("plain");
    assert!(line.contains(" INFO  worker] worker 1 (pid ") && line.ends_with("plain\\u{7}"), "{line}");
    let line = master.wait_log("sold out");
    assert!(line.contains(" WARN  shop] worker 1 (pid ") && line.ends_with("sold out left=0"), "{line}");
    master.wait_log("PROTEUS_LOG: missing field `message`");
    master.stop(&scene);
}

#[test]
fn a_flood_of_records_delays_nobody_and_is_counted() {
    let scene = Scene::new("record-flood");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut settings = logging("flood");
    settings["worker"] = 2.into();
    let mut command = Master::command(&scene, &settings);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let master = Master::start_as_is(&scene, command);
    master.wait_ready(2);
    master.wait_status("drops", |status| status["dropped"]["logLines"].as_u64() > Some(100_000));
    let asked = Instant::now();
    master.signal(libc::SIGUSR2);
    master.wait_status("a restart", |status| status["restart"]["state"] == "completed");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(proc::resident(master.pid()) < 64 << 20, "{} bytes", proc::resident(master.pid()));
    master.stop(&scene);
    drop(reader);
}

/// Settings of a worker that says a line now and then, and a log file in the test's folder.
fn ticking(file: Value) -> Value {
    let script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.01; done";
    let mut settings = shell_workers(1, script);
    settings["output"] = "log".into();
    settings["logFile"] = file;
    settings
}

/// What a file holds by now.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn dropped(master: &Master) -> u64 {
    master.status()["dropped"]["logLines"].as_u64().expect("a count")
}

/// While nothing is logged, nobody looks where the file has gone: the order does.
#[test]
fn a_log_file_is_reopened_by_signal_and_by_order() {
    let scene = Scene::new("reopen");
    let (path, old) = (scene.path("app.log"), scene.path("app.old"));
    let mut settings = shell_workers(1, "echo tick; exec sleep 1000");
    settings["output"] = "log".into();
    settings["logFile"] = json!(path);
    let mut command = Master::command(&scene, &settings);
    command.env("RUST_LOG", "off,worker=info");
    let master = Master::start(&scene, command);
    wait_until("its line", || read(&path).contains(": tick"));
    let by_signal = || master.signal(libc::SIGUSR1);
    let by_order = || assert_eq!(master.ask("/reopen").body, "OK");
    let orders: [&dyn Fn(); 2] = [&by_signal, &by_order];
    for order in orders {
        std::fs::rename(&path, &old).expect("moved");
        master.wait_one_ready();
        assert!(!path.exists());
        order();
        wait_until("a new file", || path.exists());
    }
    assert_eq!(dropped(&master), 0);
    assert!(!read(&old).contains('\u{1b}'), "no colours in a file");
    assert!(!master.has_logged("tick"), "nothing of it on stderr");
    master.stop(&scene);
}

#[test]
fn a_full_log_file_makes_way_and_the_oldest_goes() {
    let scene = Scene::new("rotation");
    let folder = scene.path("logs");
    std::fs::create_dir(&folder).expect("a folder");
    let path = folder.join("app.log");
    let settings = ticking(json!({ "path": path, "maxSize": 1000, "keep": 2 }));
    let master = Master::run(&scene, &settings);
    let number = |line: &str| line.rsplit_once("tick ").and_then(|(_, number)| number.parse::<u64>().ok());
    wait_until("many files' worth", || read(&path).lines().filter_map(number).next_back() > Some(100));
    master.stop(&scene);
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["app.log", "app.log.1", "app.log.2"]);
    let texts = ["app.log.2", "app.log.1", "app.log"].map(|name| read(&folder.join(name)));
    assert!(texts.iter().all(|text| (1..=1000).contains(&text.len()) && text.ends_with('\n')), "{texts:#?}");
    let numbers: Vec<u64> = texts.concat().lines().filter_map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost or torn: {numbers:?}");
}

#[test]
fn a_date_in_the_name_makes_new_files() {
    let scene = Scene::new("dated");
    let folder = scene.path("logs");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("app.2001-02-03-04-05-06.log"), "old").expect("a file");
    std::fs::write(folder.join("app.log"), "a stranger").expect("a file");
    let settings = ticking(json!({ "path": folder.join("app.%F-%H-%M-%S.log"), "keep": 1 }));
    let master = Master::run(&scene, &settings);
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&folder).expect("the folder").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    let first = eventually("a file of this second", || {
        names().into_iter().find(|name| name.starts_with("app.2") && !name.starts_with("app.2001"))
    });
    wait_until("the next one, and the one after", || {
        let names = names();
        names.len() == 3 && !names.contains(&first) && names.contains(&"app.log".to_owned())
    });
    assert_eq!(dropped(&master), 0);
    master.stop(&scene);
}

#[test]
fn a_missing_folder_is_said_once_and_recovered_from() {
    let scene = Scene::new("no-folder");
    let folder = scene.path("logs");
    let path = folder.join("app.log");
    let master = Master::run(&scene, &ticking(json!(path)));
    let trouble = format!("cannot open log file {}: no such file or directory", path.display());
    master.wait_log(&trouble);
    wait_until("drops", || dropped(&master) > 20);
    assert_eq!(master.log_text().matches(&trouble).count(), 1, "{}", master.log_text());
    std::fs::create_dir(&folder).expect("the folder");
    wait_until("lines again", || read(&path).contains(": tick "));
    wait_until("the word on what was dropped", || {
        read(&path).lines().map(told).sum::<u64>() == dropped(&master)
    });
    std::fs::remove_dir_all(&folder).expect("removed");
    wait_until("trouble again", || master.log_text().matches(&trouble).count() == 2);
    std::fs::create_dir(&folder).expect("the folder");
    wait_until("lines again", || read(&path).contains(": tick "));
    master.stop(&scene);
}

#[test]
fn a_full_disk_is_said_once_and_its_drops_are_counted_exactly() {
    let scene = Scene::new("full-disk");
    let mut settings = shell_workers(1, "for i in 1 2 3 4 5 6 7; do echo $i; done; exec sleep 1000");
    settings["output"] = "log".into();
    settings["logFile"] = "/dev/full".into();
    let mut command = Master::command(&scene, &settings);
    command.env("RUST_LOG", "off,worker=info,proteus_cluster=warn");
    let master = Master::start(&scene, command);
    master.wait_one_ready();
    wait_until("seven drops", || dropped(&master) == 7);
    let trouble = "cannot write log file /dev/full: no space left on device; its lines are dropped";
    master.wait_log(trouble);
    master.ask("/reopen");
    wait_until("nothing else", || settled_drops(&master) == 7);
    assert_eq!(master.log_lines().len(), 1, "{}", master.log_text());
    master.stop(&scene);
}

#[test]
fn json_lines() {
    let scene = Scene::new("json");
    let path = scene.path("app.json");
    let mut settings = logging("all-kinds");
    settings["logFile"] = json!(path);
    settings["logFormat"] = "json".into();
    let master = Master::run(&scene, &settings);
    let pid = master.wait_one_ready();
    master.stop(&scene);
    let lines: Vec<Value> =
        read(&path).lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let find = |message: &str| lines.iter().find(|line| line["message"] == message).expect(message);
    let line = find("an error\n[forged] \u{1b}[31m");
    assert_eq!((&line["level"], &line["target"]), (&json!("ERROR"), &json!("it::roles::logs")));
    assert_eq!((&line["worker"], &line["slot"], &line["pid"]), (&json!(1), &json!(0), &json!(pid)));
    assert!(line["file"].as_str().is_some_and(|file| file.ends_with("roles/logs.rs")), "{line}");
    assert!(line["line"].is_u64() && line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    let line = find("with key-values");
    assert_eq!(line["kv"], json!({ "n": -3, "who": "a\nb", "ok": true }));
    assert_eq!(find("running 1 test")["target"], "worker::stdout");
    assert!(lines.iter().any(|line| line["target"] == "proteus_cluster" && line.get("worker").is_none()));
}

#[test]
fn colours_are_for_terminals() {
    let scene = Scene::new("colours");
    let config = scene
        .write("c.json", r#"{ "worker": 1, "exec": "sh", "args": ["-c", "exit 7"], "maxForkCount": 0 }"#);
    for (style, coloured) in [("auto", false), ("always", true), ("never", false)] {
        let mut command = Command::new(crate::harness::proteus());
        command.args(["run", "--config"]).arg(&config).env(proc::TAG, &scene.tag);
        let output = command.env("RUST_LOG_STYLE", style).output().expect("it runs");
        assert_eq!(output.stderr.contains(&0x1b), coloured, "{style}");
    }
}

#[test]
fn a_logger_of_the_hosts_own_gets_it_all_and_may_stand_still() {
    let scene = Scene::new("host-logger");
    let master = Master::start(&scene, role_command("logs:host"));
    master.wait_ready(2);
    let log = scene.path("host.log");
    wait_until("both workers' lines", || {
        let text = read(&log);
        [1, 2].iter().all(|id| {
            let end = format!("): from worker {id}");
            text.lines().any(|line| {
                line.starts_with(&format!("WARN inside worker {id} (pid ")) && line.ends_with(&end)
            })
        })
    });
    scene.write("stop", "");
    master.signal(libc::SIGUSR2);
    master.wait_status("a restart beside a logger that stands still", |status| {
        status["restart"]["state"] == "completed"
    });
    master.stop(&scene);
    assert!(!scene.path("never.log").exists());
}
