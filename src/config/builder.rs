//! Settings on their way to a `Config`: from Rust, from JSON, and from flags on top of either.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::Api;
use super::given::{Given, Refusal, plain, quoted, without_nul};
use super::listener::{Listener, ListenerConfig};
use super::settings::{Setting, row};
use super::{Config, GuardUse, LogFile, LogFormat, Output, Ready, Speaks, json};
use crate::error::{Error, Result};
use crate::journal::LogPlace;

/// Variables between a master and its own worker, or between the master and who started it: a value from the settings
/// would be lost or mislead, and the master's own do not leak through.
pub(crate) const RESERVED_ENV: &[&str] = &[
    "PROTEUS_WORKER_ID",
    "PROTEUS_SLOT",
    "PROTEUS_GENERATION",
    "PROTEUS_CHANNEL_FD",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "FDSTORE",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "SYSTEMD_EXEC_PID",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
];

/// Collects settings for a [`Config`].
///
/// A value that cannot be is remembered, and [`build`](Builder::build) returns the first one as an error.
/// Each setting that is not given has its default. Durations are at most ten years.
///
/// ```
/// use std::time::Duration;
/// use proteus_cluster::{Api, Config};
///
/// let config = Config::builder()
///     .workers(4)
///     .listen("http", "127.0.0.1:8080")
///     .disconnect_timeout(Duration::from_secs(30))
///     .api(Api::new("127.0.0.1:8111"))
///     .build()?;
/// # Ok::<(), proteus_cluster::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    /// Every value in here has passed its own check; `api` waits outside because its parts come one by one.
    pub(super) config: Config,
    pub(super) api: Option<Api>,
    pub(super) log_file: Option<LogFile>,
    problem: Option<String>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Builder { config: Config::defaults(), api: None, log_file: None, problem: None }
    }

    /// Settings from JSON, to which more can be added; what is added later wins.
    ///
    /// # Errors
    ///
    /// Text that is not JSON, a key that stands twice, a key that is no setting (with the nearest that is one),
    /// and a value of the wrong type or out of its range.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut builder = Builder::new();
        json::apply(&mut builder, text)?;
        Ok(builder)
    }

    /// Settings from a JSON file; its path stands before every error.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and all of [`Builder::from_json`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| Error::start(path.display(), error))?;
        Builder::from_json(&text).map_err(|error| Error::setting(format!("{}: {error}", path.display())))
    }

    /// The words given to a setting's flag, on top of what is there; refusals name the flag.
    #[doc(hidden)]
    pub fn flag(mut self, setting: &Setting, words: &[OsString]) -> Result<Self> {
        let name = setting.flag.map_or(setting.key, |flag| flag.long);
        self.take(setting, &Given::Words(words)).map_err(|refusal| refusal.of_flag(name))?;
        Ok(self)
    }

    /// The number of workers: 1 to 4096. By default the CPUs available to this process, as its cgroup and affinity have it.
    pub fn workers(self, count: usize) -> Self {
        self.count("worker", count)
    }

    /// A file for the master's pid, locked while the master lives. By default none.
    pub fn pid_file(self, path: impl Into<PathBuf>) -> Self {
        self.path("pid", path.into())
    }

    /// The program of the workers. By default the running executable, with its own arguments.
    ///
    /// A bare name is looked up in the workers' `PATH`, a relative path counts from the master's working directory,
    /// and a `.js`, `.mjs`, `.cjs`, `.ts`, `.mts` or `.cts` file runs under `node`.
    pub fn exec(self, program: impl Into<PathBuf>) -> Self {
        self.path("exec", program.into())
    }

    /// The arguments of the program. By default none; for the running executable, the master's own.
    ///
    /// `{slot}`, `{id}`, `{generation}` and `{port}` are the worker's own; `{{slot}}` is the text `{slot}`, and
    /// `${slot}` stays as it is. `{port}` is a port of 127.0.0.1 that was free, another for each worker.
    pub fn args<I>(self, args: I) -> Self
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let words: Vec<OsString> = args.into_iter().map(Into::into).collect();
        self.give("args", &Given::Words(&words))
    }

    /// How long a worker may take to finish its work after it was told to disconnect;
    /// then its process group gets SIGKILL. By default 10 s.
    pub fn disconnect_timeout(self, time: Duration) -> Self {
        self.give("disconnectTimeout", &Given::Time(time))
    }

    /// How many crash replacements are allowed before the cluster gives up, which it does only
    /// when no worker is ready. By default 100; 0 gives up at the first crash that leaves none.
    pub fn max_fork_count(self, count: u32) -> Self {
        self.give("maxForkCount", &Given::Count(count.into()))
    }

    /// All workers ready for so long sets the count of crash replacements back. By default 60 s.
    pub fn stable_after(self, time: Duration) -> Self {
        self.give("stableAfter", &Given::Time(time))
    }

    /// How many ready workers `/ready` of the control API asks for: at most the number of workers. By default 1.
    pub fn min_ready(self, count: usize) -> Self {
        self.count("minReady", count)
    }

    /// The control API. By default none.
    pub fn api(mut self, api: Api) -> Self {
        self.api = Some(api);
        if let Err(error) = self.check_api() {
            self.remember(&error);
        }
        self
    }

    /// One more listener, called `name`, at `address`: see [`ListenAddress`](crate::ListenAddress) for its text.
    pub fn listen(self, name: impl AsRef<str>, address: impl AsRef<str>) -> Self {
        self.listener(Listener::new(name, address))
    }

    /// One more listener, with options.
    pub fn listener(mut self, listener: Listener) -> Self {
        let position = self.config.listeners.len();
        if let Err(refusal) = self.add_listener(listener) {
            self.remember(&refusal.of_setting(&format!("listen[{position}]")));
        }
        self
    }

    /// A variable of the workers' environment, on top of the master's. The last value of a key counts; it is filled
    /// in as [`args`](Builder::args) are.
    ///
    /// Keys that the master sets itself (`LISTEN_FDS`, `NOTIFY_SOCKET`, `PROTEUS_…`) are refused.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        if let Err(refusal) = self.set_env(key.into(), value.into()) {
            self.remember(&refusal.of_setting("env"));
        }
        self
    }

    /// The working directory of the workers. By default the master's.
    pub fn cwd(self, directory: impl Into<PathBuf>) -> Self {
        self.path("cwd", directory.into())
    }

    /// The user that the workers run as, which takes a privileged master. By default the master's.
    pub fn user(self, name: impl AsRef<str>) -> Self {
        self.text("user", name.as_ref())
    }

    /// The group that the workers run as, which takes a privileged master. By default the user's, or the master's.
    pub fn group(self, name: impl AsRef<str>) -> Self {
        self.text("group", name.as_ref())
    }

    /// Whose words the workers speak on their channel. By default [`Speaks::Auto`].
    pub fn speaks(mut self, speaks: Speaks) -> Self {
        self.config.speaks = speaks;
        self
    }

    /// How a worker is known to be ready. By default [`Ready::Auto`].
    pub fn ready(mut self, ready: Ready) -> Self {
        self.config.ready = ready;
        self
    }

    /// A worker that is not ready by then is killed and counts as failed. More than 0; by default 30 s.
    pub fn ready_timeout(self, time: Duration) -> Self {
        self.give("readyTimeout", &Given::Time(time))
    }

    /// A worker that exits sooner failed quickly, and its replacement waits; one that has no way to say
    /// that it is ready counts as ready after so long. By default 1 s.
    pub fn min_uptime(self, time: Duration) -> Self {
        self.give("minUptime", &Given::Time(time))
    }

    /// The delays between quick failures in a row: none, `initial`, twice that, up to `max`.
    /// Both more than 0 and `initial` at most `max`; by default 100 ms and 5 s.
    pub fn backoff(self, initial: Duration, max: Duration) -> Self {
        self.give("backoff.initial", &Given::Time(initial)).give("backoff.max", &Given::Time(max))
    }

    /// How many extra workers a rolling restart may run at a time: 1 to 4096. By default 1.
    pub fn surge(self, count: usize) -> Self {
        self.count("surge", count)
    }

    /// How long the first replacement of a restart must stay up after ready before the rest follow. By default 1 s.
    pub fn canary(self, time: Duration) -> Self {
        self.give("canary", &Given::Time(time))
    }

    /// How long a ready worker may be silent before it counts as hung. By default workers are not watched.
    ///
    /// A worker says that it is alive by [`Worker::alive`](crate::Worker::alive) or by `sd_notify` (`WATCHDOG=1`),
    /// best twice as often as this. Say it from the loop that serves: a thread of its own would go on saying so
    /// when nobody serves any more. [`Worker::incoming`](crate::Worker::incoming) says it while it waits. A hung
    /// worker gets SIGABRT, so that a stack or a core is had, SIGKILL 5 s later, and counts as a crash.
    pub fn watchdog(self, time: Duration) -> Self {
        self.give("watchdog", &Given::Time(time))
    }

    /// The age at which a worker is replaced; each up to a tenth earlier, so that they do not come due together.
    /// By default they may grow as old as they like. The replacement comes first, and one worker is replaced at
    /// a time, never during a restart.
    pub fn max_lifetime(self, time: Duration) -> Self {
        self.give("maxLifetime", &Given::Time(time))
    }

    /// The resident bytes above which a worker is replaced, looked at every second; as
    /// [`max_lifetime`](Builder::max_lifetime) otherwise. By default they may hold as much as they like.
    /// Memory that workers share counts for each of them.
    pub fn max_memory(self, bytes: u64) -> Self {
        self.give("maxMemory", &Given::Count(bytes))
    }

    /// Where the workers' stdout and stderr go. By default [`Output::Inherit`].
    pub fn output(mut self, output: Output) -> Self {
        self.config.output = Some(output);
        self
    }

    /// A file for the master's log, which takes [`logger::init`](crate::logger::init). By default stderr.
    ///
    /// It is written by the master alone. What is wrong with it (no such folder, a full disk) is said once, on
    /// stderr; lines that it does not take are dropped and counted, and it is tried again. It is opened anew on
    /// SIGUSR1, by `/reopen` and by [`Handle::reopen_logs`](crate::Handle::reopen_logs), for programs such as
    /// logrotate.
    pub fn log_file(mut self, file: LogFile) -> Self {
        self.log_file = Some(file);
        if let Err(error) = self.check_log_file() {
            self.remember(&error);
        }
        self
    }

    /// How the master's log is written, which takes [`logger::init`](crate::logger::init). By default
    /// [`LogFormat::Text`].
    pub fn log_format(mut self, format: LogFormat) -> Self {
        self.config.log_format = format;
        self
    }

    /// The launcher's own default.
    #[doc(hidden)]
    pub fn output_unless_given(mut self, output: Output) -> Self {
        self.config.output.get_or_insert(output);
        self
    }

    /// Whether a small process beside the master, the guard, ends the workers and all that they have started when the
    /// master is killed.
    ///
    /// By default where the kernel alone would not end the workers: a program with file capabilities, or with the
    /// set-user-ID or set-group-ID bit. `true` is always, so that what workers have started goes too; `false` is never.
    pub fn guard(mut self, on: bool) -> Self {
        self.config.guard = if on { GuardUse::Always } else { GuardUse::Never };
        self
    }

    /// For `--watch`.
    #[doc(hidden)]
    pub fn disconnect_timeout_at_most(mut self, time: Duration) -> Self {
        self.config.disconnect_timeout = self.config.disconnect_timeout.min(time);
        self
    }

    /// Whether the master takes orders from signals. By default on; off, the program keeps its own
    /// signal handling and gives orders through the handle.
    pub fn handle_signals(mut self, on: bool) -> Self {
        self.config.handle_signals = on;
        self
    }

    /// The signal that tells a worker without a channel to disconnect, by name: `SIGTERM` (the default), `QUIT`…
    /// SIGKILL and SIGSTOP are refused, for no worker could finish its work.
    pub fn stop_signal(self, name: impl AsRef<str>) -> Self {
        self.text("stopSignal", name.as_ref())
    }

    /// The settings, after every check.
    ///
    /// # Errors
    ///
    /// The first value that cannot be, by its JSON key: out of range, an empty name or path, an address
    /// that cannot be read, two listeners of one name or address, more `minReady` than workers.
    pub fn build(self) -> Result<Config> {
        if let Some(problem) = self.problem {
            return Err(Error::setting(problem));
        }
        let api = self.api.as_ref().map(Api::checked).transpose()?;
        let log_file = self.check_log_file()?;
        let mut config = Config { api, log_file, ..self.config };
        share_ports(&mut config.listeners);
        check_together(&config)?;
        Ok(config)
    }

    /// Takes a value through its row, as all three spellings do.
    pub(super) fn take(&mut self, setting: &Setting, given: &Given) -> Result<(), Refusal> {
        (setting.take)(self, given)
    }

    pub(super) fn add_listener(&mut self, listener: Listener) -> Result<(), Refusal> {
        let checked = listener.checked(self.config.listeners.len())?;
        self.config.listeners.push(checked);
        Ok(())
    }

    pub(super) fn set_env(&mut self, key: OsString, value: OsString) -> Result<(), Refusal> {
        let name = key.to_string_lossy();
        plain(&key).map_err(|refusal| format!("a key {}", refusal.reason()))?;
        if key.as_bytes().contains(&b'=') {
            return Err(format!("the key {} holds an equals sign", quoted(&name)).into());
        }
        if RESERVED_ENV.contains(&&*name) {
            return Err(format!("{name} is the master's own to set").into());
        }
        without_nul(&value).map_err(|_| format!("the value of {} holds a NUL byte", quoted(&name)))?;
        let variables = &mut self.config.env;
        match variables.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => variables.push((key, value)),
        }
        Ok(())
    }

    /// The API, which being spoken of turns on.
    pub(super) fn api_mut(&mut self) -> &mut Api {
        self.api.get_or_insert_default()
    }

    pub(super) fn log_file_mut(&mut self) -> &mut LogFile {
        self.log_file.get_or_insert_default()
    }

    pub(super) fn check_api(&self) -> Result<()> {
        self.api.as_ref().map_or(Ok(()), |api| api.checked().map(drop))
    }

    fn check_log_file(&self) -> Result<Option<LogPlace>> {
        let checked = self.log_file.as_ref().map(LogFile::checked).transpose();
        checked.map_err(|refusal| refusal.of_setting("logFile"))
    }

    fn give(mut self, key: &str, given: &Given) -> Self {
        if let Err(refusal) = self.take(row(key), given) {
            self.remember(&refusal.of_setting(key));
        }
        self
    }

    fn count(self, key: &str, count: usize) -> Self {
        self.give(key, &Given::Count(u64::try_from(count).unwrap_or(u64::MAX)))
    }

    fn path(self, key: &str, path: PathBuf) -> Self {
        self.give(key, &Given::Words(&[path.into_os_string()]))
    }

    fn text(self, key: &str, text: &str) -> Self {
        self.give(key, &Given::Words(&[text.into()]))
    }

    /// The first problem is the one to mend first.
    fn remember(&mut self, error: &Error) {
        self.problem.get_or_insert_with(|| error.to_string());
    }
}

/// What no row can see by itself.
fn check_together(config: &Config) -> Result<()> {
    let Config { workers, min_ready, backoff, .. } = config;
    if min_ready > workers {
        let reason = format!("setting `minReady`: {min_ready} is more than `worker` ({workers})");
        return Err(Error::setting(reason));
    }
    if backoff.initial > backoff.max {
        let (initial, max) = (backoff.initial, backoff.max);
        let reason = format!("setting `backoff.initial`: {initial:?} is more than `backoff.max` ({max:?})");
        return Err(Error::setting(reason));
    }
    check_listeners(config)
}

/// An IPv6 listener for all addresses leaves IPv4 to the listener that asks for it.
fn share_ports(listeners: &mut [ListenerConfig]) {
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address.clone()).collect();
    for listener in listeners {
        listener.only_ipv6 = addresses.iter().any(|other| listener.address.shares_port_with_ipv4(other));
    }
}

fn check_listeners(config: &Config) -> Result<()> {
    let listeners = &config.listeners;
    for (position, listener) in listeners.iter().enumerate() {
        let ListenerConfig { name, address, .. } = listener;
        if let Some(api) = config.api.as_ref().filter(|api| api.listen.clashes_with(address)) {
            let reason = format!("setting `api.listen`: {} is the address of listener `{name}`", api.listen);
            return Err(Error::setting(reason));
        }
        let probes = config.api.as_ref().and_then(|api| api.probes).map(super::ListenAddress::Tcp);
        if let Some(probes) = probes.filter(|probes| probes.clashes_with(address)) {
            let reason = format!("setting `api.probes`: {probes} is the address of listener `{name}`");
            return Err(Error::setting(reason));
        }
        for other in &listeners[..position] {
            if other.name == *name {
                return Err(Error::setting(format!("setting `listen`: two listeners are named `{name}`")));
            }
            if other.address.clashes_with(address) {
                let names = format!("`{}` and `{name}`", other.name);
                return Err(Error::setting(format!("setting `listen`: {names} have one address, {address}")));
            }
        }
    }
    Ok(())
}
