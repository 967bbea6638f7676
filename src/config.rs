//! The settings of a cluster: JSON, the Rust builder and command-line flags are three spellings of one [`Config`].
//!
//! All three go through the one table in `config/settings.rs`. A `Config` exists only after every check:
//! parse, then trust.

mod address;
mod api;
mod builder;
mod given;
mod json;
mod listener;
mod log_file;
mod nearest;
#[doc(hidden)]
pub mod settings;
mod signal;
#[cfg(test)]
mod tests;
mod token_file;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::ListenAddress;
pub(crate) use address::UNIX_PATH_BYTES;
pub use api::Api;
pub(crate) use api::{ApiConfig, DEFAULT_WORKER_TIMEOUT, LONGEST_WORKER_TIMEOUT};
pub use builder::Builder;
pub(crate) use builder::RESERVED_ENV;
pub use listener::Listener;
pub(crate) use listener::ListenerConfig;
pub use log_file::LogFile;
pub(crate) use settings::WORKERS;

use crate::error::Result;
use crate::journal::LogPlace;

/// The settings of a cluster, all checked.
///
/// Made by [`Config::builder`] or [`Config::from_json`]. `Display` is a one-line summary.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) workers: usize,
    pub(crate) pid_file: Option<PathBuf>,
    /// None is the running executable.
    pub(crate) exec: Option<PathBuf>,
    /// None is the master's own for the running executable, and none for any other program.
    pub(crate) args: Option<Vec<OsString>>,
    pub(crate) disconnect_timeout: Duration,
    pub(crate) max_fork_count: u32,
    pub(crate) stable_after: Duration,
    pub(crate) min_ready: usize,
    pub(crate) api: Option<ApiConfig>,
    pub(crate) listeners: Vec<ListenerConfig>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) speaks: Speaks,
    pub(crate) ready: Ready,
    pub(crate) ready_timeout: Duration,
    pub(crate) min_uptime: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) surge: usize,
    pub(crate) canary: Duration,
    /// None is not said: the launcher captures, a program that embeds the cluster does not.
    pub(crate) output: Option<Output>,
    pub(crate) log_file: Option<LogPlace>,
    pub(crate) log_format: LogFormat,
    pub(crate) guard: GuardUse,
    pub(crate) handle_signals: bool,
    pub(crate) stop_signal: i32,
    /// None does not watch.
    pub(crate) watchdog: Option<Duration>,
    /// None is for ever.
    pub(crate) max_lifetime: Option<Duration>,
    /// Resident bytes; none is any number.
    pub(crate) max_memory: Option<u64>,
}

/// Delays between quick failures: `initial`, doubled up to `max`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
}

/// Whether a process beside the master ends the workers when the master is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardUse {
    /// Where the kernel alone would not.
    Auto,
    Always,
    Never,
}

/// Whose words the workers speak on their channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Speaks {
    /// Those of Node where the program can be seen to be one of Node's: `node` itself, a `.js`, `.mjs`, `.cjs`, `.ts`,
    /// `.mts` or `.cts` file, a script whose first line names `node`, `env node`, or a command in `node_modules/.bin`.
    /// Else this project's.
    #[default]
    Auto,
    /// Those of Node's `cluster` module: `listen` in a worker asks the master, and `process.send` reaches it.
    Node,
    /// This project's lines, by `PROTEUS_CHANNEL_FD`, whatever the program looks like.
    Proteus,
}

/// How a worker is known to be ready to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// A worker that can say so is waited for; one that says nothing counts as ready once it has lived
    /// for the minimal uptime, unless the workers of this cluster have said so before.
    #[default]
    Auto,
    /// Every worker must say so.
    Notify,
    /// Every worker that has lived for the minimal uptime is ready.
    Alive,
}

/// How the master's log is written by [`logger::init`](crate::logger::init).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// A line of text for each record, as `env_logger` writes it.
    #[default]
    Text,
    /// A JSON object on a line for each record: `time`, `level`, `target`, `message`; of a worker `worker` (its id),
    /// `slot` and `pid`; and where they are known `module`, `file`, `line`, and `kv` with the key-values.
    Json,
}

/// Where the workers' stdout and stderr go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// To the master's own.
    #[default]
    Inherit,
    /// Into the master's log, line by line, as records of the targets `worker::stdout` (level info) and
    /// `worker::stderr` (level warn), with the worker's id and pid.
    ///
    /// A line of more than 8 KiB becomes several. What is not UTF-8 is replaced, and control characters are
    /// escaped. What the log does not take in time is dropped and counted (`dropped.logLines` of the status); a
    /// worker never waits. The last lines on stderr are kept for `lastExit` of the status.
    Log,
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Settings from JSON: the keys of the README's table, durations in whole milliseconds.
    ///
    /// ```
    /// use proteus_cluster::Config;
    ///
    /// let config = Config::from_json(r#"{"worker": 4, "exec": "./server", "listen": "127.0.0.1:8080"}"#)?;
    /// assert_eq!(config.to_string(), "4 workers of ./server, listening on 127.0.0.1:8080");
    /// # Ok::<(), proteus_cluster::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Builder::from_json`] and [`Builder::build`].
    pub fn from_json(text: &str) -> Result<Self> {
        Builder::from_json(text)?.build()
    }

    /// The program of the workers; `None` is the running executable.
    pub fn exec(&self) -> Option<&Path> {
        self.exec.as_deref()
    }

    /// Where the control API is to listen.
    #[doc(hidden)]
    pub fn api_address(&self) -> Option<&ListenAddress> {
        self.api.as_ref().map(|api| &api.listen)
    }

    /// The token that it asks for.
    #[doc(hidden)]
    pub fn api_token(&self) -> Result<Option<String>> {
        self.api.as_ref().map_or(Ok(None), ApiConfig::read_token)
    }

    /// What whoever runs this should know before it runs.
    #[doc(hidden)]
    pub fn warning(&self) -> Option<String> {
        self.api.as_ref().and_then(|api| api.warning(&api.listen))
    }

    fn defaults() -> Self {
        Config {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            pid_file: None,
            exec: None,
            args: None,
            disconnect_timeout: Duration::from_secs(10),
            max_fork_count: 100,
            stable_after: Duration::from_secs(60),
            min_ready: 1,
            api: None,
            listeners: Vec::new(),
            env: Vec::new(),
            cwd: None,
            user: None,
            group: None,
            speaks: Speaks::Auto,
            ready: Ready::Auto,
            ready_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) },
            surge: 1,
            canary: Duration::from_secs(1),
            output: None,
            log_file: None,
            log_format: LogFormat::Text,
            guard: GuardUse::Auto,
            handle_signals: true,
            stop_signal: libc::SIGTERM,
            watchdog: None,
            max_lifetime: None,
            max_memory: None,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} worker{}", self.workers, if self.workers == 1 { "" } else { "s" })?;
        if let Some(program) = &self.exec {
            write!(f, " of {}", program.display())?;
        }
        for (position, listener) in self.listeners.iter().enumerate() {
            write!(f, "{} {}", if position == 0 { ", listening on" } else { "," }, listener.address)?;
            if listener.only_ipv6 {
                write!(f, " (IPv6 alone)")?;
            }
        }
        if let Some(api) = &self.api {
            write!(f, "; control API on {}", api.listen)?;
        }
        Ok(())
    }
}
