//! The table of settings: one row each, from which JSON, flags, help and the README's table derive.
//!
//! A new setting is a row here, a field of `Config` and a method of `Builder`.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::api::Api;
use super::builder::Builder;
use super::given::{Given, Refusal, quoted};
use super::listener::Listener;
use super::{GuardUse, LogFormat, Output, Ready, Speaks, signal};

pub use super::nearest::nearest;

/// More than any machine serves well; it catches a port or a duration in the wrong place.
const MOST_WORKERS: usize = 4096;
/// More than anybody looks through.
const MOST_FILES: usize = 100_000;
pub(crate) const WORKERS: RangeInclusive<usize> = 1..=MOST_WORKERS;

/// One setting.
pub struct Setting {
    /// Its name in JSON; a dot stands before the name inside an object.
    pub key: &'static str,
    /// Its spelling on the command line, where it has one.
    pub flag: Option<Flag>,
    /// The default, as help shows it.
    pub default: &'static str,
    /// What it does, in one line.
    pub meaning: &'static str,
    pub(super) take: fn(&mut Builder, &Given) -> Result<(), Refusal>,
}

/// A command-line flag; every one takes a value.
#[derive(Clone, Copy)]
pub struct Flag {
    /// `n` of `-n`.
    pub short: Option<char>,
    /// `workers` of `--workers`.
    pub long: &'static str,
    /// What stands for the value in help.
    pub value: &'static str,
}

const fn flag(long: &'static str, value: &'static str) -> Flag {
    Flag { short: None, long, value }
}

/// Reads a duration as flags spell it: `1500`, `1500ms`, `30s`, `5m` or `1h`; at most ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    Given::Words(&[text.into()]).time().map_err(|refusal| refusal.reason().to_owned())
}

/// Settings whose feature is still to come: refused rather than ignored.
pub const LATER: &[&str] = &[];

/// Every setting, in the order of the help text.
pub static SETTINGS: &[Setting] = &[
    Setting {
        key: "worker",
        flag: Some(Flag { short: Some('n'), long: "workers", value: "N" }),
        default: "available CPUs",
        meaning: "number of workers",
        take: |builder, given| given.count(&WORKERS).map(|n| builder.config.workers = n),
    },
    Setting {
        key: "exec",
        flag: None,
        default: "the running executable",
        meaning: "program of the workers; a bare name is looked up in their PATH, a relative path counts from the master's directory, and a .js, .mjs, .cjs, .ts, .mts or .cts file runs under node",
        take: |builder, given| given.path().map(|path| builder.config.exec = Some(path)),
    },
    Setting {
        key: "speaks",
        flag: Some(flag("speaks", "WHOSE")),
        default: "auto",
        meaning: "whose words the workers speak on their channel: node (they share what they listen on, as under Node's own cluster), proteus, or auto (node's where the program can be seen to be node)",
        take: |builder, given| given.one_of(SPEAKS).map(|speaks| builder.config.speaks = speaks),
    },
    Setting {
        key: "args",
        flag: None,
        default: "none",
        meaning: "arguments of the program; {slot}, {id}, {generation} and {port} are filled in for each worker",
        take: |builder, given| given.list().map(|words| builder.config.args = Some(words)),
    },
    Setting {
        key: "listen",
        flag: Some(flag("listen", "[NAME=]ADDRESS")),
        default: "none",
        meaning: "a socket that the workers share: 127.0.0.1:8080, [::]:80, unix:/run/app.sock, unix:@app or udp:127.0.0.1:53; may be repeated",
        take: take_listen,
    },
    Setting {
        key: "env",
        flag: Some(flag("env", "KEY=VALUE")),
        default: "none",
        meaning: "environment of the workers, on top of the master's, filled in as args are; may be repeated",
        take: take_env,
    },
    Setting {
        key: "cwd",
        flag: Some(flag("cwd", "DIR")),
        default: "inherit",
        meaning: "working directory of the workers",
        take: |builder, given| given.path().map(|path| builder.config.cwd = Some(path)),
    },
    Setting {
        key: "user",
        flag: Some(flag("user", "NAME")),
        default: "inherit",
        meaning: "user that the workers run as",
        take: |builder, given| given.text().map(|name| builder.config.user = Some(name.into())),
    },
    Setting {
        key: "group",
        flag: Some(flag("group", "NAME")),
        default: "inherit",
        meaning: "group that the workers run as",
        take: |builder, given| given.text().map(|name| builder.config.group = Some(name.into())),
    },
    Setting {
        key: "pid",
        flag: Some(flag("pid", "FILE")),
        default: "none",
        meaning: "pid file, locked while the master lives",
        take: |builder, given| given.path().map(|path| builder.config.pid_file = Some(path)),
    },
    Setting {
        key: "api.listen",
        flag: Some(flag("api", "ADDRESS")),
        default: "off; with api, 127.0.0.1",
        meaning: "control API at 127.0.0.1:8111, a host alone, unix:/path or unix:@name",
        take: take_api_listen,
    },
    Setting {
        key: "api.port",
        flag: None,
        default: "8111",
        meaning: "port of the control API, when api.listen has none",
        take: |builder, given| given.count(&(0..=u16::MAX)).map(|port| builder.api_mut().port = Some(port)),
    },
    Setting {
        key: "api.token",
        flag: None,
        default: "none",
        meaning: "bearer token that the control API asks for; never a flag, since everybody can read a command line",
        take: take_api_token,
    },
    Setting {
        key: "api.workerTimeout",
        flag: None,
        default: "5000",
        meaning: "how long /sync_send waits for the workers' replies; 60000 at most",
        take: |builder, given| given.time().map(|time| builder.api_mut().worker_timeout = Some(time)),
    },
    Setting {
        key: "api.hosts",
        flag: None,
        default: "none",
        meaning: "names by which callers know the control API, beside localhost, IP addresses and the machine's own name",
        take: take_api_hosts,
    },
    Setting {
        key: "api.tokenFile",
        flag: Some(flag("api-token-file", "FILE")),
        default: "none",
        meaning: "the same as api.token, in a file of its own",
        take: |builder, given| given.path().map(|path| builder.api_mut().token_file = Some(path)),
    },
    Setting {
        key: "api.anyUser",
        flag: Some(flag("api-any-user", "YES")),
        default: "off",
        meaning: "true: every user of this machine gives orders to an API on loopback without a token, not only root and the master's own",
        take: |builder, given| given.yes_or_no().map(|yes| builder.api_mut().any_user = yes),
    },
    Setting {
        key: "api.probes",
        flag: Some(flag("api-probes", "ADDRESS")),
        default: "none",
        meaning: "another address, as 0.0.0.0:8112, for /health and /ready alone, which asks for no token",
        take: |builder, given| given.text().map(String::from).map(|at| builder.api_mut().probes = Some(at)),
    },
    Setting {
        key: "ready",
        flag: Some(flag("ready", "HOW")),
        default: "auto",
        meaning: "how a worker is known to be ready: auto, notify (it must say so) or alive (it need not)",
        take: |builder, given| given.one_of(READY).map(|ready| builder.config.ready = ready),
    },
    Setting {
        key: "readyTimeout",
        flag: Some(flag("ready-timeout", "TIME")),
        default: "30000",
        meaning: "a worker that is not ready by then is killed and counts as failed",
        take: |builder, given| given.time_above_zero().map(|time| builder.config.ready_timeout = time),
    },
    Setting {
        key: "minUptime",
        flag: Some(flag("min-uptime", "TIME")),
        default: "1000",
        meaning: "a worker that exits sooner failed quickly; one that cannot say ready counts as ready after it",
        take: |builder, given| given.time().map(|time| builder.config.min_uptime = time),
    },
    Setting {
        key: "minReady",
        flag: Some(flag("min-ready", "N")),
        default: "1",
        meaning: "ready workers that /ready of the control API asks for",
        take: |builder, given| given.count(&(0..=MOST_WORKERS)).map(|n| builder.config.min_ready = n),
    },
    Setting {
        key: "disconnectTimeout",
        flag: Some(flag("disconnect-timeout", "TIME")),
        default: "10000",
        meaning: "time for a graceful stop before SIGKILL",
        take: |builder, given| given.time().map(|time| builder.config.disconnect_timeout = time),
    },
    Setting {
        key: "stopSignal",
        flag: Some(flag("stop-signal", "SIGNAL")),
        default: "SIGTERM",
        meaning: "tells a worker that does not read its channel to stop",
        take: |builder, given| signal::read(given.text()?).map(|signal| builder.config.stop_signal = signal),
    },
    Setting {
        key: "maxForkCount",
        flag: Some(flag("max-fork-count", "N")),
        default: "100",
        meaning: "crash replacements before the cluster gives up",
        take: |builder, given| given.count(&(0..=u32::MAX)).map(|n| builder.config.max_fork_count = n),
    },
    Setting {
        key: "stableAfter",
        flag: Some(flag("stable-after", "TIME")),
        default: "60000",
        meaning: "all workers ready for so long sets the count of crash replacements back",
        take: |builder, given| given.time_above_zero().map(|time| builder.config.stable_after = time),
    },
    Setting {
        key: "backoff.initial",
        flag: Some(flag("backoff-initial", "TIME")),
        default: "100",
        meaning: "delay before the second quick failure in a row is replaced; it doubles from there",
        take: |builder, given| given.time_above_zero().map(|time| builder.config.backoff.initial = time),
    },
    Setting {
        key: "backoff.max",
        flag: Some(flag("backoff-max", "TIME")),
        default: "5000",
        meaning: "longest such delay",
        take: |builder, given| given.time_above_zero().map(|time| builder.config.backoff.max = time),
    },
    Setting {
        key: "surge",
        flag: Some(flag("surge", "N")),
        default: "1",
        meaning: "extra workers that a rolling restart may run at a time",
        take: |builder, given| given.count(&WORKERS).map(|n| builder.config.surge = n),
    },
    Setting {
        key: "canary",
        flag: Some(flag("canary", "TIME")),
        default: "1000",
        meaning: "how long the first replacement of a restart must stay up before the rest follow",
        take: |builder, given| given.time().map(|time| builder.config.canary = time),
    },
    Setting {
        key: "watchdog",
        flag: Some(flag("watchdog", "TIME")),
        default: "off",
        meaning: "a ready worker that does not say for so long that it is alive is hung: SIGABRT, SIGKILL 5 s later, replaced",
        take: |builder, given| given.time_above_zero().map(|time| builder.config.watchdog = Some(time)),
    },
    Setting {
        key: "maxLifetime",
        flag: Some(flag("max-lifetime", "TIME")),
        default: "off",
        meaning: "age at which a worker is replaced, up to a tenth earlier; replacement first, one at a time",
        take: |builder, given| given.time_above_zero().map(|time| builder.config.max_lifetime = Some(time)),
    },
    Setting {
        key: "maxMemory",
        flag: Some(flag("max-memory", "BYTES")),
        default: "off",
        meaning: "resident bytes above which a worker is replaced, looked at every second; replacement first, one at a time",
        take: |builder, given| {
            given.count(&(1..=u64::MAX)).map(|bytes| builder.config.max_memory = Some(bytes))
        },
    },
    Setting {
        key: "guard",
        flag: Some(flag("guard", "WHEN")),
        default: "auto",
        meaning: "whether a process beside the master kills the workers' process groups when the master is killed: auto (where the kernel would not kill the workers), true or false",
        take: |builder, given| given.one_of_or_bool(GUARD).map(|guard| builder.config.guard = guard),
    },
    Setting {
        key: "output",
        flag: Some(flag("output", "WHERE")),
        default: "inherit; log under proteus run",
        meaning: "where the workers' stdout and stderr go: inherit (the master's own) or log (line by line into its log)",
        take: |builder, given| given.one_of(OUTPUT).map(|output| builder.config.output = Some(output)),
    },
    Setting {
        key: "logFile.path",
        flag: Some(flag("log-file", "FILE")),
        default: "none",
        meaning: "file for the log instead of stderr; a date in its name, such as app.%Y-%m-%d.log, makes a new file when it changes",
        take: |builder, given| given.path().map(|path| builder.log_file_mut().path = Some(path)),
    },
    Setting {
        key: "logFile.maxSize",
        flag: Some(flag("log-file-max-size", "SIZE")),
        default: "none",
        meaning: "bytes (or 10K, 10M, 1G) that the log file may have; a full one becomes NAME.1, the one before it NAME.2",
        take: |builder, given| given.size().map(|size| builder.log_file_mut().max_size = Some(size)),
    },
    Setting {
        key: "logFile.keep",
        flag: Some(flag("log-file-keep", "N")),
        default: "none",
        meaning: "older log files that stay, by date or size; the oldest are deleted; without it all stay",
        take: |builder, given| given.count(&(0..=MOST_FILES)).map(|n| builder.log_file_mut().keep = Some(n)),
    },
    Setting {
        key: "logFormat",
        flag: Some(flag("log-format", "FORMAT")),
        default: "text",
        meaning: "how the log is written: text, or json (an object a line)",
        take: |builder, given| given.one_of(FORMAT).map(|format| builder.config.log_format = format),
    },
];

const FORMAT: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const SPEAKS: &[(&str, Speaks)] =
    &[("auto", Speaks::Auto), ("node", Speaks::Node), ("proteus", Speaks::Proteus)];

const READY: &[(&str, Ready)] = &[("auto", Ready::Auto), ("notify", Ready::Notify), ("alive", Ready::Alive)];

const GUARD: &[(&str, GuardUse)] =
    &[("auto", GuardUse::Auto), ("true", GuardUse::Always), ("false", GuardUse::Never)];

const OUTPUT: &[(&str, Output)] = &[("inherit", Output::Inherit), ("log", Output::Log)];

/// The row of `key`, which the caller knows to be there.
pub(super) fn row(key: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.key == key).expect("a key of the table")
}

/// Listeners on the command line replace those of the file.
fn take_listen(builder: &mut Builder, given: &Given) -> Result<(), Refusal> {
    builder.config.listeners.clear();
    match given {
        Given::Json(Value::Array(items)) => {
            for (position, item) in items.iter().enumerate() {
                let added = Listener::from_json(item).and_then(|listener| builder.add_listener(listener));
                added.map_err(|refusal| refusal.under(format!("[{position}]")))?;
            }
            Ok(())
        }
        Given::Json(value) => builder.add_listener(Listener::from_json(value)?),
        Given::Words(words) => words.iter().try_for_each(|word| {
            let text = word.to_str().ok_or_else(|| Refusal::from("the address is not UTF-8"))?;
            builder.add_listener(Listener::from_flag(text))
        }),
        Given::Count(_) | Given::Time(_) => Err(given.is_not("an address")),
    }
}

fn take_env(builder: &mut Builder, given: &Given) -> Result<(), Refusal> {
    match given {
        Given::Json(Value::Object(variables)) => variables.iter().try_for_each(|(key, value)| {
            let set = match value.as_str() {
                Some(text) => builder.set_env(key.into(), text.into()),
                None => Err(Given::Json(value).is_not("a string")),
            };
            set.map_err(|refusal| refusal.under(format!(".{}", key.escape_debug())))
        }),
        Given::Words(words) => words.iter().try_for_each(|word| {
            let (key, value) = split_env(word).ok_or_else(|| {
                Refusal::from(format!("{} is not KEY=VALUE", quoted(&word.to_string_lossy())))
            })?;
            builder.set_env(key, value)
        }),
        Given::Json(_) | Given::Count(_) | Given::Time(_) => Err(given.is_not("an object of strings")),
    }
}

fn split_env(word: &std::ffi::OsStr) -> Option<(OsString, OsString)> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = word.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=')?;
    let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Some((part(&bytes[..equals]), part(&bytes[equals + 1..])))
}

/// From the command line an address replaces the file's, port and all; the file's token stays.
fn take_api_listen(builder: &mut Builder, given: &Given) -> Result<(), Refusal> {
    let listen = Some(given.text()?.to_string());
    let api = builder.api_mut();
    api.listen = listen;
    if matches!(given, Given::Words(_)) {
        api.port = None;
        Api::address(api)?;
    }
    Ok(())
}

/// Refused without being shown.
fn take_api_token(builder: &mut Builder, given: &Given) -> Result<(), Refusal> {
    let token = given.text().map_err(|_| Refusal::from("must be a string that is not empty"))?;
    builder.api_mut().token = Some(token.into());
    Ok(())
}

fn take_api_hosts(builder: &mut Builder, given: &Given) -> Result<(), Refusal> {
    let text = |name: OsString| name.into_string().map_err(|_| Refusal::from("must be UTF-8 text"));
    builder.api_mut().hosts = given.list()?.into_iter().map(text).collect::<Result<_, _>>()?;
    Ok(())
}
