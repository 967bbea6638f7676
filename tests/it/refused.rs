//! What cannot start: one clear line that names the thing and the cause, status 2, nothing overwritten, nothing left.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::master::idle_settings;
use crate::harness::tools::in_path;
use crate::harness::{Master, Scene, proc, proteus, skipped, sys};

/// All files of the test's folder with what they hold.
fn folder(scene: &Scene) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(&scene.folder).expect("the folder").flatten();
    let described = entries.map(|entry| {
        let kind = entry.file_type().expect("a type");
        let content = match kind {
            _ if kind.is_symlink() => format!("-> {:?}", std::fs::read_link(entry.path())),
            _ if kind.is_dir() || kind.is_socket() || kind.is_fifo() => format!("{kind:?}"),
            _ => String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a file")).into_owned(),
        };
        (entry.file_name().to_string_lossy().into_owned(), content)
    });
    described.collect()
}

fn command(scene: &Scene, words: &[&str]) -> Command {
    command_of(scene, proteus(), words)
}

fn command_of(scene: &Scene, program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).env(proc::TAG, &scene.tag).env_remove("RUST_LOG");
    command.current_dir(&scene.folder).stdin(Stdio::null());
    sys::die_with_me(&mut command);
    command
}

/// Runs it to its end and returns the one line that it says.
#[track_caller]
fn refused_by(scene: &Scene, mut command: Command) -> String {
    let before = folder(scene);
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(2), "{stdout}{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(folder(scene), before, "{stderr}");
    scene.assert_nothing_left();
    stderr.strip_prefix("proteus: ").unwrap_or_else(|| panic!("{stderr}")).trim_end().to_owned()
}

#[track_caller]
fn refused(scene: &Scene, words: &[&str]) -> String {
    refused_by(scene, command(scene, words))
}

/// Settings that would start, with everything that could be left behind; and what `change` adds.
fn settings(change: &Value) -> Value {
    let mut settings = idle_settings();
    settings["pid"] = json!("left.pid");
    settings["listen"] = json!([{ "name": "left", "address": "unix:left.sock" }]);
    settings["api"] = json!({ "listen": "unix:left-api.sock" });
    for (key, value) in change.as_object().expect("an object") {
        settings[key] = value.clone();
    }
    settings
}

/// `proteus run` with such settings in `bad.json`.
#[track_caller]
fn refused_settings(scene: &Scene, change: &Value) -> String {
    scene.write("bad.json", settings(change).to_string());
    refused(scene, &["run", "--config", "bad.json"])
}

#[test]
fn the_settings_of_these_tests_start() {
    let scene = Scene::new("refused-none");
    let master = Master::run(&scene, &{
        let mut good = settings(&json!({}));
        good["api"] = Value::Null;
        good.as_object_mut().expect("an object").remove("api");
        good
    });
    master.wait_one_ready();
    assert!(scene.path("left.pid").exists() && scene.path("left.sock").exists());
    master.stop(&scene);
    assert!(!scene.path("left.pid").exists() && !scene.path("left.sock").exists());
}

#[test]
fn settings_that_cannot_be() {
    let scene = Scene::new("refused-settings");
    let table = [
        (json!({ "wroker": 4 }), "bad.json: unknown setting `wroker` (4): did you mean `worker`?"),
        (json!({ "worker": "four" }), "bad.json: setting `worker`: \"four\" is not a whole number"),
        (json!({ "worker": 0 }), "bad.json: setting `worker`: 0 is out of range (1 to 4096)"),
        (json!({ "worker": 1.5 }), "bad.json: setting `worker`: 1.5 is not a whole number"),
        (json!({ "disconnectTimeout": -1 }), "bad.json: setting `disconnectTimeout`: -1"),
        (json!({ "args": "-c" }), "bad.json: setting `args`: \"-c\" is not an array of strings"),
        (json!({ "listen": 8080 }), "bad.json: setting `listen`: 8080 is a port without an address"),
        (json!({ "exec": "" }), "bad.json: setting `exec`: must not be empty"),
        (json!({ "stopSignal": "SIGKILL" }), "bad.json: setting `stopSignal`: \"SIGKILL\" cannot be caught"),
        (json!({ "env": { "LISTEN_FDS": "1" } }), "LISTEN_FDS"),
        (json!({ "minReady": 2 }), "minReady"),
    ];
    for (change, line) in table {
        let said = refused_settings(&scene, &change);
        assert!(said.contains(line), "{change}: {said}");
        // A flag may still mend what two settings say together, so `run` does not name the file for that.
        let checked = refused(&scene, &["check", "--config", "bad.json"]);
        assert!(checked.starts_with("bad.json: ") && checked.ends_with(&said), "{checked}");
    }
    for (text, line) in
        [("{", "bad.json"), ("[]", "bad.json"), ("", "bad.json"), ("{\"worker\":1,\"worker\":2}", "twice")]
    {
        scene.write("bad.json", text);
        let said = refused(&scene, &["run", "--config", "bad.json"]);
        assert!(said.contains(line), "{text}: {said}");
    }
}

#[test]
fn words_that_cannot_be() {
    let scene = Scene::new("refused-words");
    let table: &[(&[&str], &str)] = &[
        (&["run", "--wrokers", "2", "--", "sleep", "1"], "unknown flag --wrokers: did you mean --workers?"),
        (&["run", "-n", "0", "--", "sleep", "1"], "--workers: \"0\" is out of range"),
        (&["run", "-n", "many", "--", "sleep", "1"], "--workers: \"many\" is not a whole number"),
        (&["run"], "no program to run"),
        (&["run", "-n"], "--workers needs a value"),
        (&["run", "--config", "none.json"], "none.json: no such file or directory"),
        (&["check", "--config", "none.json"], "none.json: no such file or directory"),
        (&["check"], "no file to check"),
        (&["rnu"], "unknown command \"rnu\": did you mean `run`?"),
        (&[], "no command"),
    ];
    for (words, line) in table {
        let said = refused(&scene, words);
        assert!(said.contains(line), "{words:?}: {said}");
    }
}

#[test]
fn programs_that_cannot_be() {
    let scene = Scene::new("refused-program");
    scene.write("plain.txt", "no program\n");
    scene.write_program("text.sh", "just text\n");
    scene.write_program("lost.sh", "#!/no/such/interpreter\n");
    std::fs::create_dir(scene.path("folder")).expect("made");
    // Opened as it is, each would wait for a writer.
    for fifo in ["fifo.js", "fifo"] {
        let made = Command::new("mkfifo").args(["-m", "755"]).arg(scene.path(fifo)).status();
        assert!(made.expect("mkfifo").success());
    }
    let node = if in_path("node").is_some() { "/fifo.js: is not a regular file" } else { "node: no such" };
    let table = [
        ("./fifo", "exec ", "/fifo: is not a regular file"),
        ("./fifo.js", "exec ", node),
        ("./none", "exec ", "/none: no such file or directory"),
        ("no-such-program", "exec no-such-program: ", "no such program in PATH"),
        ("./folder", "exec ", "/folder: is a directory"),
        ("./plain.txt", "exec ", "/plain.txt: not executable"),
        ("./plain.txt/x", "exec ", "/plain.txt/x: not a directory"),
        (
            "./text.sh",
            "execute ",
            "/text.sh: exec format error (a script needs a first line such as #!/bin/sh)",
        ),
        (
            "./lost.sh",
            "execute ",
            "/lost.sh: no such file or directory (the file is there; the interpreter that it names is not)",
        ),
    ];
    for (exec, thing, cause) in table {
        for workers in [1, 3] {
            let said = refused_settings(&scene, &json!({ "exec": exec, "args": [], "worker": workers }));
            assert!(said.starts_with(thing) && said.contains(cause), "{exec}: {said}");
        }
    }
    let said = refused_settings(&scene, &json!({ "exec": "none.js" }));
    assert!(
        said.contains("node: no such program in PATH") || said.contains("none.js: no such file"),
        "{said}"
    );
}

/// Where a name and a relative path are looked for; what is not there is said with the folder.
#[test]
fn where_programs_are_looked_for() {
    let scene = Scene::new("refused-where");
    for folder in ["tools", "app", "app/tools"] {
        std::fs::create_dir(scene.path(folder)).expect("made");
    }
    scene.write_program("tools/mine", "#!/bin/sh\nexit 0\n");
    scene.write_program("app/tools/inner", "#!/bin/sh\nexit 0\n");
    let path = |folder: &str| json!({ "PATH": format!("{folder}:/usr/bin:/bin") });
    let there = scene.path("tools").display().to_string();
    let folder = scene.folder.display();
    let refused = [
        (json!({ "exec": "mine" }), "exec mine: no such program in PATH".to_owned()),
        (
            json!({ "exec": "mine", "env": path("/none") }),
            "exec mine: no such program in the PATH of `env`".to_owned(),
        ),
        (
            json!({ "exec": "tools/inner", "cwd": "app" }),
            format!(
                "exec {folder}/tools/inner: no such file or directory (tools/inner counts from {folder}, where the \
                 master was started, not from cwd {folder}/app)"
            ),
        ),
    ];
    for (change, line) in refused {
        assert_eq!(refused_settings(&scene, &change), line, "{change}");
    }
    let taken = [
        json!({ "exec": "mine", "env": path(&there) }),
        json!({ "exec": "inner", "env": path("tools"), "cwd": "app" }),
        json!({ "exec": "tools/mine", "cwd": "app" }),
    ];
    for settings in taken {
        let config = scene.write("taken.json", settings.to_string());
        let mut check = command(&scene, &["check", "--config"]);
        let checked = check.arg(config).output().expect("it runs");
        assert!(checked.status.success(), "{settings}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn users_and_folders_that_cannot_be() {
    let scene = Scene::new("refused-user");
    scene.write("plain.txt", "a file\n");
    let table = [
        (json!({ "user": "no-such-user" }), "user `no-such-user`: no such user"),
        (json!({ "group": "no-such-group" }), "group `no-such-group`: no such group"),
        (
            json!({ "user": "4294967295" }),
            "user `4294967295`: the number 4294967295 is nobody's: for the kernel it means that nothing is changed",
        ),
        (
            json!({ "group": "4294967295" }),
            "group `4294967295`: the number 4294967295 is nobody's: for the kernel it means that nothing is changed",
        ),
        (json!({ "user": "-1" }), "user `-1`: no such user"),
        (json!({ "cwd": "none" }), "cwd none: no such file or directory"),
        (json!({ "cwd": "plain.txt" }), "cwd plain.txt: not a directory"),
    ];
    for (change, line) in table {
        assert_eq!(refused_settings(&scene, &change), line);
    }
}

/// The master could start such workers, and neither stop nor kill them.
#[test]
fn a_user_whose_processes_the_master_could_not_signal() {
    let scene = Scene::new("refused-signal");
    if !sys::is_root() || in_path("setpriv").is_none() {
        return skipped("refused-signal", "takes root and setpriv");
    }
    let config = scene.write("proteus.json", settings(&json!({ "user": "nobody" })).to_string());
    let without = |capabilities: &str, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", capabilities])
            .arg(proteus())
            .args(words)
            .arg("--config")
            .arg(&config);
        command.env(proc::TAG, &scene.tag).current_dir(&scene.folder);
        command
    };
    let line = "user `nobody`: the master may change to it (CAP_SETUID) but could not signal its processes, neither to \
                stop nor to kill them, since it lacks CAP_KILL; add CAP_KILL where CAP_SETUID comes from, such as \
                CapabilityBoundingSet= of the unit";
    for words in ["run", "check"] {
        let said = refused_by(&scene, without("-kill", &[words]));
        assert!(said.ends_with(line), "{words}: {said}");
    }
    let checked = without("-kill,-setuid", &["check"]).output().expect("it runs");
    assert!(
        checked.status.success(),
        "who may not change to the user is told by the first spawn: {checked:?}"
    );
}

#[test]
fn addresses_in_use() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let (port, udp_port) = (tcp.local_addr().expect("bound").port(), udp.local_addr().expect("bound").port());
    let with = |at: Value| json!({ "listen": [{ "name": "left", "address": "unix:left.sock" }, at] });
    let api = |listen: &str| json!({ "api": { "listen": listen } });
    let in_use = "address already in use";
    let table = [
        (with(json!(format!("127.0.0.1:{port}"))), format!("listener listen1 at 127.0.0.1:{port}: {in_use}")),
        (
            with(json!({ "address": format!("127.0.0.1:{port}"), "reusePort": true })),
            format!("listener listen1 at 127.0.0.1:{port}: {in_use}"),
        ),
        (
            with(json!(format!("udp:127.0.0.1:{udp_port}"))),
            format!("listener listen1 at udp:127.0.0.1:{udp_port}: {in_use}"),
        ),
        (
            with(json!({ "name": "app", "address": "unix:live.sock" })),
            "listener app at unix:live.sock: address in use".into(),
        ),
        (
            with(json!("unix:data.sock")),
            "listener listen1 at unix:data.sock: there is a file that is not a socket".into(),
        ),
        (
            with(json!("unix:none/app.sock")),
            "listener listen1 at unix:none/app.sock: no such file or directory".into(),
        ),
        (
            with(json!("203.0.113.1:80")),
            "listener listen1 at 203.0.113.1:80: cannot assign requested address".into(),
        ),
        (
            json!({ "api": { "listen": "127.0.0.1", "port": port } }),
            format!("control API at 127.0.0.1:{port}: {in_use}"),
        ),
        (api("unix:live.sock"), "control API at unix:live.sock: address in use".into()),
        (api("unix:data.sock"), "control API at unix:data.sock: there is a file that is not a socket".into()),
    ];
    // All at once, for the master is patient with an address that its predecessor may be about to leave.
    let cases = table.map(|(change, line)| {
        std::thread::spawn(move || {
            let scene = Scene::new("refused-address");
            let _live = UnixListener::bind(scene.path("live.sock")).expect("bound");
            scene.write("data.sock", "precious\n");
            let said = refused_settings(&scene, &change);
            assert!(said.starts_with(&line), "{change}: {said}");
        })
    });
    for case in cases {
        case.join().expect("refused as it should be");
    }
}

#[test]
fn pid_files_that_cannot_be() {
    let scene = Scene::new("refused-pid");
    scene.write("data", "precious\n");
    scene.write("long", "1".repeat(100));
    symlink("data", scene.path("link")).expect("made");
    symlink("nowhere", scene.path("dangling")).expect("made");
    std::fs::create_dir(scene.path("folder")).expect("made");
    let fifo = Command::new("mkfifo").arg(scene.path("fifo")).status().expect("mkfifo");
    assert!(fifo.success());
    let _socket = UnixListener::bind(scene.path("socket")).expect("bound");
    let table = [
        ("data", "it holds something other than a pid"),
        ("long", "it holds something other than a pid"),
        ("link", "it is a symbolic link"),
        ("dangling", "it is a symbolic link"),
        ("folder", "it is a directory"),
        ("fifo", "it is not a regular file"),
        ("socket", "it is not a regular file"),
        ("none/file", "no such file or directory"),
        ("data/file", "not a directory"),
        ("/dev/null", "it is not a regular file"),
    ];
    for (pid, cause) in table {
        let said = refused_settings(&scene, &json!({ "pid": pid }));
        let whole = if pid.starts_with('/') { pid.to_owned() } else { scene.path(pid).display().to_string() };
        assert!(said.starts_with(&format!("pid file {whole}: {cause}")), "{pid}: {said}");
    }
}

#[test]
fn a_pid_file_in_a_folder_that_cannot_be_written() {
    let scene = Scene::new("refused-folder");
    if !sys::is_root() {
        return skipped(&scene.tag, "only root can make a folder that this user cannot write to");
    }
    let Some(program) = program_for_all(&scene) else {
        return skipped(&scene.tag, "an ordinary user reaches no folder of the tests");
    };
    let as_nobody = |words: &[&str]| {
        let mut command = command_of(&scene, &program, words);
        command.uid(65534).gid(65534);
        command
    };
    scene.write("bad.json", settings(&json!({ "api": { "listen": "127.0.0.1", "port": 0 } })).to_string());
    let said = refused_by(&scene, as_nobody(&["run", "--config", "bad.json"]));
    assert_eq!(said, format!("pid file {}: permission denied", scene.path("left.pid").display()));
    let said = refused_by(&scene, as_nobody(&["run", "--user", "root", "--", "sleep", "1000"]));
    assert_eq!(said, "set user and group of sleep: operation not permitted");
}

/// A copy of the program where any user can run it, which the folder it was built in may not allow.
fn program_for_all(scene: &Scene) -> Option<PathBuf> {
    let copy = scene.path("proteus-for-all");
    // By a process of its own: nobody can execute a file that this one may still write to.
    assert!(Command::new("cp").arg(proteus()).arg(&copy).status().expect("cp").success());
    let tried = Command::new(&copy).arg("--version").uid(65534).gid(65534).output();
    tried.is_ok_and(|tried| tried.status.success()).then_some(copy)
}

#[test]
fn a_pid_file_that_another_master_holds() {
    let scene = Scene::new("refused-locked");
    let mut first = idle_settings();
    first["pid"] = json!("the.pid");
    let master = Master::run(&scene, &first);
    master.wait_one_ready();
    scene.write("second.json", settings(&json!({ "pid": "the.pid" })).to_string());
    let before = folder(&scene);
    let second = command(&scene, &["run", "--config", "second.json"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    let path = scene.path("the.pid");
    let line =
        format!("proteus: pid file {}: locked by pid {}, which is running\n", path.display(), master.pid());
    assert_eq!(said, line);
    assert_eq!(folder(&scene), before);
    assert_eq!(std::fs::read_to_string(&path).expect("there"), format!("{}\n", master.pid()));
    master.stop(&scene);
}

#[test]
fn check_says_whether_a_file_is_good_and_starts_nothing() {
    let scene = Scene::new("check");
    scene.write("good.json", settings(&json!({})).to_string());
    let before = folder(&scene);
    let output = command(&scene, &["check", "--config", "good.json"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("good.json: ok: 1 worker of sleep") && said.lines().count() == 1, "{said}");
    assert_eq!(folder(&scene), before);
    scene.write("bad.json", settings(&json!({ "exec": "./none" })).to_string());
    let said = refused(&scene, &["check", "--config", "bad.json"]);
    assert!(said.contains("/none: no such file or directory"), "{said}");
}
