//! The files of unix sockets: brought back when somebody removes them, and whose they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::master::{idle_settings, role_settings};
use crate::harness::tools::with_each_node;
use crate::harness::{Master, Scene, http, proc, skipped, sys, wait_until};

/// A worker that answers on a path, having removed what was there: a habit of many.
const TIDY: &str = r"
var fs = require('fs'), http = require('http'), path = process.argv[2];
if (fs.existsSync(path)) fs.unlinkSync(path);
http.createServer(function (request, response) { response.end('pid=' + process.pid + '\n'); }).listen(path);
";

fn answers(path: &Path) -> bool {
    http::over_unix(path, "GET", "/", "").is_ok_and(|answer| answer.body.starts_with("pid="))
}

/// A cleaner of temporary files, say: the workers' socket, and the control API's.
#[test]
fn what_somebody_removes_comes_back() {
    let scene = Scene::new("file-removed");
    let mut settings = role_settings("sockets");
    settings["worker"] = json!(1);
    settings["listen"] = json!([
        { "name": "http", "address": "127.0.0.1:0" },
        { "name": "admin", "address": "unix:admin.sock", "mode": "0660" },
        { "name": "dns", "address": "udp:127.0.0.1:0" },
    ]);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let (path, api) = (scene.path("admin.sock"), master.api().to_owned());
    for _ in 0..3 {
        fs::remove_file(&path).expect("there");
        wait_until("back", || answers(&path));
    }
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
    let line = master.wait_log("it was linked back");
    assert!(line.contains("admin.sock: somebody removed the file of this socket"), "{line}");
    fs::remove_file(&api).expect("there");
    wait_until("back", || master.try_status().is_some());
    fs::remove_file(scene.path(".admin.sock.spare")).expect("there");
    wait_until("the spare name is back", || scene.path(".admin.sock.spare").exists());
    master.stop(&scene);
    let left: Vec<_> =
        fs::read_dir(&scene.folder).expect("there").map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["proteus.json"], "no name of a socket is left");
}

/// What is killed leaves its file and the spare name: the next master takes both over.
#[test]
fn what_a_killed_master_leaves_is_taken_over() {
    let scene = Scene::new("file-killed");
    let mut settings = idle_settings();
    settings["listen"] = json!("unix:app.sock");
    let mut first = Master::run(&scene, &settings);
    first.wait_one_ready();
    first.signal(libc::SIGKILL);
    first.wait_exit();
    wait_until("its worker is gone too", || UnixStream::connect(scene.path("app.sock")).is_err());
    let second = Master::run(&scene, &settings);
    second.wait_one_ready();
    UnixStream::connect(scene.path("app.sock")).expect("served anew");
    second.stop(&scene);
    assert!(!scene.path("app.sock").exists() && !scene.path(".app.sock.spare").exists());
}

#[test]
fn workers_that_tidy_up_before_they_listen() {
    with_each_node("workers_that_tidy_up_before_they_listen", |node| {
        let scene = Scene::new("file-tidy");
        scene.write("tidy.js", TIDY);
        let path = scene.path("app.sock");
        let settings =
            json!({ "worker": 3, "exec": "tidy.js", "args": [path], "canary": 0, "minUptime": 600_000 });
        let mut command = Master::command(&scene, &settings);
        command.env("PATH", node);
        let master = Master::start(&scene, command);
        master.wait_ready(3);
        wait_until("served", || answers(&path));
        master.signal(libc::SIGUSR2);
        master.wait_status("restarted", |status| status["restart"]["state"] == "completed");
        master.wait_ready(3);
        wait_until("served", || answers(&path));
        master.wait_log("it was linked back");
        master.stop(&scene);
    });
}

/// `readableAll` and `writableAll` add to what the umask leaves, as with Node's own master.
#[test]
fn node_opens_its_path_to_all() {
    with_each_node("node_opens_its_path_to_all", |node| {
        if node.to_string_lossy().contains("node8") {
            return; // it tells its master nothing of this
        }
        let scene = Scene::new("file-all");
        scene.write(
            "all.js",
            r"
            var net = require('net');
            function listen(path, options) {
              options.path = path;
              net.createServer().listen(options, function () { require('fs').writeFileSync(path + '.up', ''); });
            }
            listen('both.sock', { readableAll: true, writableAll: true, backlog: 7 });
            listen('read.sock', { readableAll: true });
            listen('none.sock', {});
            ",
        );
        let settings = json!({ "worker": 1, "exec": "all.js", "minUptime": 600_000 });
        let run = Master::command(&scene, &settings);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 027; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
        command.env("PATH", node);
        let master = Master::start(&scene, command);
        master.wait_one_ready();
        for (name, mode) in [("both.sock", 0o776), ("read.sock", 0o754), ("none.sock", 0o750)] {
            wait_until(name, || scene.path(&format!("{name}.up")).exists());
            let found = fs::metadata(scene.path(name)).expect("there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}: {found:o}");
        }
        master.stop(&scene);
    });
}

/// Bound by way of the folder: neither the names beside the socket's own nor a long folder make it too long.
#[test]
fn long_paths_are_bound() {
    use std::os::fd::AsRawFd;
    let scene = Scene::new("file-long");
    let folder = scene.path(&"x".repeat(115));
    fs::create_dir(&folder).expect("a folder");
    let fits = scene.path(&"y".repeat(107 - scene.folder.as_os_str().len() - 1));
    let mut settings = idle_settings();
    settings["listen"] = json!(["unix:a.sock", format!("unix:{}", fits.display())]);
    let run = Master::command(&scene, &settings);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("cd \"$0\" && exec \"$@\"")
        .arg(&folder)
        .arg(run.get_program())
        .args(run.get_args());
    let master = Master::start(&scene, command);
    master.wait_one_ready();
    let opened = fs::File::open(&folder).expect("there");
    UnixStream::connect(format!("/proc/self/fd/{}/a.sock", opened.as_raw_fd())).expect("bound");
    UnixStream::connect(&fits).expect("bound");
    master.stop(&scene);
    assert_eq!(fs::read_dir(&folder).expect("there").count(), 0);
}

#[test]
fn the_file_is_given_to_a_user_and_a_group() {
    if !sys::is_root() {
        return skipped("the_file_is_given_to_a_user_and_a_group", "only root may give files away");
    }
    let scene = Scene::new("file-owner");
    let mut settings = idle_settings();
    settings["listen"] = json!([
        { "address": "unix:both.sock", "user": "nobody", "group": "12345", "mode": "0660" },
        { "address": "unix:group.sock", "group": "12346" },
        { "address": "unix:user.sock", "user": "12347" },
    ]);
    let master = Master::run(&scene, &settings);
    master.wait_one_ready();
    let owner = |name: &str| {
        let metadata = fs::metadata(scene.path(name)).expect("there");
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("both.sock"), (65534, 12345));
    assert_eq!(owner("group.sock"), (0, 12346));
    assert_eq!(owner("user.sock"), (12347, 12347));
    fs::remove_file(scene.path("both.sock")).expect("there");
    wait_until("linked back", || scene.path("both.sock").exists());
    assert_eq!(owner("both.sock"), (65534, 12345));
    master.stop(&scene);
}

#[test]
fn a_file_that_cannot_be_given_away_is_a_start_up_error() {
    if !sys::is_root() {
        return skipped("a_file_that_cannot_be_given_away", "it takes another user");
    }
    let scene = Scene::new("file-not-given");
    fs::set_permissions(&scene.folder, fs::Permissions::from_mode(0o777)).expect("ours");
    let program = scene.proteus_for_all();
    let refused = |listen: serde_json::Value, uid: u32| {
        let mut settings = idle_settings();
        settings["listen"] = listen;
        let config = scene.write("proteus.json", settings.to_string());
        let mut command = Command::new(&program);
        command.args(["run", "--config"]).arg(config).env(proc::TAG, &scene.tag).current_dir(&scene.folder);
        let output = command.uid(uid).gid(uid).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let line = refused(json!({ "name": "a", "address": "unix:a.sock", "user": "nobody-here" }), 0);
    assert_eq!(line, "proteus: listener a at unix:a.sock: user `nobody-here`: no such user\n");
    let line = refused(json!({ "name": "a", "address": "unix:a.sock", "group": "0" }), 12345);
    assert_eq!(
        line,
        "proteus: listener a at unix:a.sock: its file cannot be given to that user or group: operation not permitted\n"
    );
    assert!(!scene.path("a.sock").exists() && !scene.path(".a.sock.spare").exists());
    scene.assert_nothing_left();
}
