//! Settings in, exact error lines out.

use super::settings::{LATER, SETTINGS};
use super::*;

pub(super) fn refused(json: &str) -> String {
    Config::from_json(json).err().unwrap_or_else(|| panic!("{json} was taken")).to_string()
}

fn flags(long: &str, words: &[&str]) -> Result<Builder> {
    let setting = SETTINGS.iter().find(|s| s.flag.is_some_and(|f| f.long == long)).expect(long);
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    Config::builder().workers(4).flag(setting, &words)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = Config::builder().build().unwrap();
    assert!(config.workers >= 1);
    assert!(config.api.is_none() && config.exec.is_none() && config.handle_signals);
    let before = format!("{:?}", Config::builder().build().unwrap());
    for setting in SETTINGS {
        let Some(flag) = setting.flag else { continue };
        if matches!(setting.key, "cwd" | "user" | "group" | "api.listen" | "output")
            || matches!(setting.default, "none" | "off" | "available CPUs")
        {
            continue;
        }
        let words = [OsString::from(setting.default)];
        let config = Config::builder().flag(setting, &words).unwrap().build().unwrap();
        assert_eq!(format!("{config:?}"), before, "--{}", flag.long);
    }
}

#[test]
fn the_table_is_consistent() {
    for (position, setting) in SETTINGS.iter().enumerate() {
        assert!(!LATER.contains(&setting.key));
        assert!(SETTINGS[..position].iter().all(|other| other.key != setting.key), "{}", setting.key);
        let Some(flag) = setting.flag else { continue };
        let kebab: String = setting
            .key
            .chars()
            .flat_map(|c| match c {
                '.' => vec!['-'],
                c if c.is_ascii_uppercase() => vec!['-', c.to_ascii_lowercase()],
                c => vec![c],
            })
            .collect();
        let expected = match setting.key {
            "worker" => "workers",
            "api.listen" => "api",
            "logFile.path" => "log-file",
            _ => &kebab,
        };
        assert_eq!(flag.long, expected);
    }
}

#[test]
fn the_names_of_the_first_proteus_work() {
    let config = Config::from_json(
        r#"{"worker": 4, "pid": "/tmp/proteus.pid", "exec": "worker.js", "args": ["-c", "config.json"],
            "disconnectTimeout": 5000, "maxForkCount": 30, "api": {"listen": "0.0.0.0", "port": 8111}}"#,
    )
    .unwrap();
    assert_eq!(config.workers, 4);
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/tmp/proteus.pid")));
    assert_eq!(config.exec(), Some(Path::new("worker.js")));
    assert_eq!(config.args, Some(vec!["-c".into(), "config.json".into()]));
    assert_eq!((config.disconnect_timeout, config.max_fork_count), (ms(5000), 30));
    assert_eq!(config.to_string(), "4 workers of worker.js; control API on 0.0.0.0:8111");
}

#[test]
fn every_other_setting_from_json() {
    let config = Config::from_json(
        r#"{"worker": 1, "stableAfter": 1, "minReady": 0, "env": {"A": "1", "B": ""}, "cwd": "d", "user": "u",
            "group": "g", "ready": "notify", "readyTimeout": 2, "minUptime": 0, "surge": 2, "canary": 0,
            "backoff": {"initial": 5, "max": 5}, "output": "inherit", "guard": true, "speaks": "node", "stopSignal": "quit", "watchdog": 7,
            "maxLifetime": 8, "maxMemory": 9, "maxForkCount": 0,
            "listen": ["127.0.0.1:1", {"address": "unix:/s", "name": "admin", "mode": "0660", "backlog": 9},
                       {"address": "udp:127.0.0.1:1", "reusePort": true}]}"#,
    )
    .unwrap();
    assert_eq!((config.stable_after, config.min_ready, config.ready), (ms(1), 0, Ready::Notify));
    assert_eq!(config.env, [("A".into(), "1".into()), ("B".into(), "".into())]);
    assert_eq!(
        (config.cwd, config.user, config.group),
        (Some("d".into()), Some("u".into()), Some("g".into()))
    );
    assert_eq!((config.ready_timeout, config.min_uptime, config.canary), (ms(2), ms(0), ms(0)));
    assert_eq!((config.backoff.initial, config.backoff.max, config.surge), (ms(5), ms(5), 2));
    assert_eq!((config.stop_signal, config.output), (libc::SIGQUIT, Some(Output::Inherit)));
    assert_eq!((config.guard, config.speaks), (GuardUse::Always, Speaks::Node));
    assert_eq!(
        (config.watchdog, config.max_lifetime, config.max_memory),
        (Some(ms(7)), Some(ms(8)), Some(9))
    );
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .map(|l| (l.name.as_str(), l.address.to_string(), l.backlog, l.reuse_port, l.mode))
        .collect();
    assert_eq!(
        listeners,
        [
            ("listen0", "127.0.0.1:1".into(), 1024, false, None),
            ("admin", "unix:/s".into(), 9, false, Some(0o660)),
            ("listen2", "udp:127.0.0.1:1".into(), 1024, true, None),
        ]
    );
}

#[test]
fn unknown_and_later_keys_are_refused() {
    let table = [
        (r#"{"workers": 4}"#, "unknown setting `workers` (4): did you mean `worker`?"),
        (r#"{"Worker": [1]}"#, "unknown setting `Worker` (an array): did you mean `worker`?"),
        (r#"{"port": 8111}"#, "unknown setting `port` (8111): did you mean `api.port`?"),
        (r#"{"API": {}}"#, "unknown setting `API` (an object): did you mean `api`?"),
        (r#"{"api.port": 8111}"#, "unknown setting `api.port` (8111): write {\"api\": {\"port\": …}}"),
        (r#"{"colour": "secret"}"#, "unknown setting `colour` (a string)"),
        (r#"{"api": {"tokn": "x"}}"#, "unknown setting `api.tokn` (a string): did you mean `api.token`?"),
        (r#"{"backoff": {"Max": 1}}"#, "unknown setting `backoff.Max` (1): did you mean `backoff.max`?"),
        (r#"{"a\nb": null}"#, "unknown setting `a\\nb` (null)"),
        (
            r#"{"listen": {"address": "unix:/s", "backLog": 4}}"#,
            "setting `listen`: unknown key `backLog` (4): did you mean `backlog`?",
        ),
        (r#"{"watchdog": 0}"#, "setting `watchdog`: must be more than 0"),
        (r#"{"maxLifetime": 0}"#, "setting `maxLifetime`: must be more than 0"),
        (r#"{"maxMemory": 0}"#, "setting `maxMemory`: 0 is out of range (1 to 18446744073709551615)"),
        (r#"{"logFile": "a/"}"#, "setting `logFile.path`: names a folder, not a file"),
        (r#"{"logFile": 7}"#, "setting `logFile`: 7 is not an object"),
        (r#"{"logFile": {"keep": 3}}"#, "setting `logFile.path`: must be given"),
        (
            r#"{"logFile": {"path": "a.log", "keep": 3}}"#,
            "setting `logFile.keep`: needs `maxSize`, or a date in the name such as app.%Y-%m-%d.log",
        ),
        (r#"{"logFile": {"path": "a.log", "maxSize": 0}}"#, "setting `logFile.maxSize`: must be more than 0"),
        (
            r#"{"logFile": {"path": "a.log", "maxSize": "ten"}}"#,
            "setting `logFile.maxSize`: \"ten\" is not a number of bytes such as 1000000, 512K, 10M or 1G",
        ),
        (
            r#"{"logFile": {"path": "a.log", "maxsize": 1}}"#,
            "unknown setting `logFile.maxsize` (1): did you mean `logFile.maxSize`?",
        ),
        (r#"{"logFormat": "xml"}"#, "setting `logFormat`: \"xml\" is not one of \"text\", \"json\""),
        (r#"{"guard": 1}"#, "setting `guard`: 1 is not a string"),
        (r#"{"guard": "on"}"#, "setting `guard`: \"on\" is not one of \"auto\", \"true\", \"false\""),
        (r#"{"output": "file"}"#, "setting `output`: \"file\" is not one of \"inherit\", \"log\""),
    ];
    for (json, line) in table {
        assert_eq!(refused(json), line);
    }
}

#[test]
fn text_that_is_no_object_of_settings_is_refused() {
    let table = [
        ("", "the settings are not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "the settings are not a JSON object but an array"),
        ("{\"worker\": 1,}", "the settings are not valid JSON: trailing comma at line 1 column 14"),
        (
            r#"{"worker": 1, "worker": 2}"#,
            "the settings are not valid JSON: the key \"worker\" stands twice at line 1 column 26",
        ),
        (
            r#"{"env": {"A": "1", "A": "2"}}"#,
            "the settings are not valid JSON: the key \"A\" stands twice at line 1 column 28",
        ),
        (r#"{"backoff": 5}"#, "setting `backoff`: 5 is not an object"),
        (r#"{"api": true}"#, "setting `api`: true is not an object"),
    ];
    for (json, line) in table {
        assert_eq!(refused(json), line);
    }
    assert!(Config::from_json(&"[".repeat(100_000)).is_err(), "deep nesting must not overflow the stack");
}

#[test]
fn wrong_values_are_refused_by_key() {
    let table = [
        (r#"{"worker": 0}"#, "setting `worker`: 0 is out of range (1 to 4096)"),
        (r#"{"worker": -1}"#, "setting `worker`: -1 is out of range (1 to 4096)"),
        (r#"{"worker": "4"}"#, "setting `worker`: \"4\" is not a whole number"),
        (r#"{"worker": 4.5}"#, "setting `worker`: 4.5 is not a whole number"),
        (r#"{"worker": 8111}"#, "setting `worker`: 8111 is out of range (1 to 4096)"),
        (
            r#"{"maxForkCount": 4294967296}"#,
            "setting `maxForkCount`: 4294967296 is out of range (0 to 4294967295)",
        ),
        (r#"{"worker": 2, "minReady": 3}"#, "setting `minReady`: 3 is more than `worker` (2)"),
        (r#"{"surge": 0}"#, "setting `surge`: 0 is out of range (1 to 4096)"),
        (r#"{"pid": ""}"#, "setting `pid`: must not be empty"),
        (r#"{"pid": 3}"#, "setting `pid`: 3 is not a string"),
        (r#"{"cwd": "a\u0000b"}"#, "setting `cwd`: \"a\\0b\" holds a NUL byte"),
        (r#"{"exec": null}"#, "setting `exec`: null is not a string"),
        (r#"{"args": "-x"}"#, "setting `args`: \"-x\" is not an array of strings"),
        (r#"{"args": ["-p", 80]}"#, "setting `args[1]`: 80 is not a string"),
        (r#"{"user": ""}"#, "setting `user`: must not be empty"),
        (
            r#"{"disconnectTimeout": -1}"#,
            "setting `disconnectTimeout`: -1 is not a whole number of milliseconds",
        ),
        (
            r#"{"disconnectTimeout": "5s"}"#,
            "setting `disconnectTimeout`: \"5s\" is not a whole number of milliseconds",
        ),
        (r#"{"canary": 315360000001}"#, "setting `canary`: 315360000001 is more than ten years"),
        (r#"{"readyTimeout": 0}"#, "setting `readyTimeout`: must be more than 0"),
        (r#"{"backoff": {"initial": 0}}"#, "setting `backoff.initial`: must be more than 0"),
        (
            r#"{"backoff": {"initial": 6000}}"#,
            "setting `backoff.initial`: 6s is more than `backoff.max` (5s)",
        ),
        (r#"{"ready": "Auto"}"#, "setting `ready`: \"Auto\" is not one of \"auto\", \"notify\", \"alive\""),
        (
            r#"{"stopSignal": "KILL"}"#,
            "setting `stopSignal`: \"KILL\" cannot be caught, so no worker could finish its work",
        ),
        (r#"{"env": ["A=1"]}"#, "setting `env`: an array is not an object of strings"),
        (r#"{"env": {"PORT": 80}}"#, "setting `env.PORT`: 80 is not a string"),
        (r#"{"env": {"": "1"}}"#, "setting `env.`: a key must not be empty"),
        (r#"{"env": {"A=B": "1"}}"#, "setting `env.A=B`: the key \"A=B\" holds an equals sign"),
        (
            r#"{"env": {"LISTEN_PIDFDID": "1"}}"#,
            "setting `env.LISTEN_PIDFDID`: LISTEN_PIDFDID is the master's own to set",
        ),
        (
            r#"{"env": {"LISTEN_FDS": "1"}}"#,
            "setting `env.LISTEN_FDS`: LISTEN_FDS is the master's own to set",
        ),
    ];
    for (json, line) in table {
        assert_eq!(refused(json), line, "{json}");
    }
}

#[test]
fn flags_are_another_spelling() {
    let build = |long: &str, words: &[&str]| flags(long, words).unwrap().build().unwrap();
    assert_eq!(build("workers", &["2", "3"]).workers, 3, "the last one counts");
    assert_eq!(build("disconnect-timeout", &["30s"]).disconnect_timeout, ms(30_000));
    assert_eq!(build("backoff-initial", &["7"]).backoff.initial, ms(7));
    assert_eq!(build("api", &["unix:/x"]).api.unwrap().listen.to_string(), "unix:/x");
    let config = build("env", &["A=1", "B=x=y", "A=2"]);
    assert_eq!(config.env, [("A".into(), "2".into()), ("B".into(), "x=y".into())]);
    let config = build("listen", &["http=*:80", "unix:/run/a=b", "c=unix:/d=e"]);
    let listeners: Vec<_> = config.listeners.iter().map(|l| format!("{}={}", l.name, l.address)).collect();
    assert_eq!(listeners, ["http=0.0.0.0:80", "listen1=unix:/run/a=b", "c=unix:/d=e"]);
}

#[test]
fn wrong_flags_are_refused_by_flag() {
    let table = [
        ("workers", "x", "--workers: \"x\" is not a whole number"),
        ("workers", "0", "--workers: \"0\" is out of range (1 to 4096)"),
        ("canary", "1.5s", "--canary: \"1.5s\" is not a duration such as 1500, 1500ms, 30s or 5m"),
        ("ready-timeout", "0", "--ready-timeout: must be more than 0"),
        ("pid", "", "--pid: must not be empty"),
        ("env", "A", "--env: \"A\" is not KEY=VALUE"),
        ("listen", "=*:80", "--listen: the name is empty"),
        ("listen", "a=", "--listen: the address is empty"),
        ("output", "logs", "--output: \"logs\" is not one of \"inherit\", \"log\""),
        ("stop-signal", "9", "--stop-signal: \"9\" is a number: write a name such as \"SIGTERM\""),
        ("api", "udp:*:1", "--api: \"udp:*:1\" is udp, and the API speaks HTTP"),
    ];
    for (long, word, line) in table {
        assert_eq!(flags(long, &[word]).unwrap_err().to_string(), line);
    }
}

#[test]
fn flags_go_over_a_file() {
    let file = r#"{"worker": 2, "listen": ["*:1", "*:2"], "env": {"A": "1", "B": "2"},
                   "api": {"listen": "0.0.0.0", "port": 1, "token": "t"}}"#;
    let mut builder = Builder::from_json(file).unwrap();
    for (long, word) in [("workers", "3"), ("listen", "*:3"), ("env", "B=3"), ("api", "127.0.0.1:9")] {
        let setting = SETTINGS.iter().find(|s| s.flag.is_some_and(|f| f.long == long)).unwrap();
        builder = builder.flag(setting, &[word.into()]).unwrap();
    }
    let config = builder.build().unwrap();
    assert_eq!(config.to_string(), "3 workers, listening on 0.0.0.0:3; control API on 127.0.0.1:9");
    assert_eq!(config.env, [("A".into(), "1".into()), ("B".into(), "3".into())]);
    assert_eq!(config.api.unwrap().read_token().unwrap().as_deref(), Some("t"));
}

#[test]
fn the_builder_sets_every_field() {
    let config = Config::builder()
        .workers(2)
        .pid_file("p")
        .exec("e")
        .args(["a", ""])
        .disconnect_timeout(ms(1))
        .max_fork_count(2)
        .stable_after(ms(3))
        .min_ready(2)
        .listen("http", "127.0.0.1:0")
        .listener(Listener::new("s", "unix:s").mode(0o600).backlog(3))
        .env("A", "1")
        .env("A", "2")
        .cwd("c")
        .user("u")
        .group("g")
        .ready(Ready::Alive)
        .ready_timeout(ms(4))
        .min_uptime(ms(5))
        .backoff(ms(6), ms(7))
        .surge(8)
        .canary(ms(9))
        .output(Output::Inherit)
        .guard(false)
        .speaks(Speaks::Proteus)
        .handle_signals(false)
        .stop_signal("INT")
        .watchdog(ms(10))
        .max_lifetime(ms(11))
        .max_memory(12)
        .build()
        .unwrap();
    assert_eq!((config.workers, config.max_fork_count, config.min_ready, config.surge), (2, 2, 2, 8));
    assert_eq!((config.guard, config.speaks), (GuardUse::Never, Speaks::Proteus));
    assert_eq!(
        (config.pid_file, config.exec, config.cwd),
        (Some("p".into()), Some("e".into()), Some("c".into()))
    );
    assert_eq!(
        (config.args, config.env),
        (Some(vec!["a".into(), "".into()]), vec![("A".into(), "2".into())])
    );
    assert_eq!((config.disconnect_timeout, config.stable_after, config.ready_timeout), (ms(1), ms(3), ms(4)));
    assert_eq!((config.min_uptime, config.backoff.initial, config.backoff.max), (ms(5), ms(6), ms(7)));
    assert_eq!((config.canary, config.handle_signals, config.stop_signal), (ms(9), false, libc::SIGINT));
    assert_eq!((config.user.as_deref(), config.group.as_deref()), (Some("u"), Some("g")));
    assert_eq!((config.ready, config.listeners[1].mode), (Ready::Alive, Some(0o600)));
    assert_eq!(
        (config.watchdog, config.max_lifetime, config.max_memory),
        (Some(ms(10)), Some(ms(11)), Some(12))
    );
}

#[test]
fn the_builder_remembers_the_first_problem() {
    let table = [
        (Config::builder().workers(0).surge(0), "setting `worker`: 0 is out of range (1 to 4096)"),
        (Config::builder().pid_file(""), "setting `pid`: must not be empty"),
        (Config::builder().args(["a\0b"]), "setting `args[0]`: \"a\\0b\" holds a NUL byte"),
        (Config::builder().ready_timeout(ms(0)), "setting `readyTimeout`: must be more than 0"),
        (
            Config::builder().canary(Duration::MAX),
            "setting `canary`: 18446744073709551615.999999999s is more than ten years",
        ),
        (
            Config::builder().backoff(ms(2), ms(1)),
            "setting `backoff.initial`: 2ms is more than `backoff.max` (1ms)",
        ),
        (Config::builder().env("A=B", ""), "setting `env`: the key \"A=B\" holds an equals sign"),
        (Config::builder().listen("", "*:1"), "setting `listen[0]`: the name is empty"),
        (
            Config::builder().listen("a", "*:1").listener(Listener::new("b", "*:2").backlog(0)),
            "setting `listen[1]`: a backlog of 0 is out of range (1 to 2147483647)",
        ),
        (
            Config::builder().listener(Listener::new("b", "unix:s").mode(0o1777)),
            "setting `listen[0]`: the mode 0o1777 is out of range (0 to 0o777)",
        ),
        (Config::builder().api(Api::new("")), "setting `api.listen`: the address is empty"),
        (
            Config::builder().stop_signal("STOP"),
            "setting `stopSignal`: \"STOP\" cannot be caught, so no worker could finish its work",
        ),
    ];
    for (builder, line) in table {
        let error = builder.build().unwrap_err();
        assert_eq!(error.to_string(), line);
        assert!(error.is_setting());
    }
}
