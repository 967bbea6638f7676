//! What a worker is started with: its program, environment and descriptors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::folder::Replacements;
use super::identity;
use super::node::Dialect;
use super::pinned::Pinned;
use super::placeholder::{self, Values};
use super::ports::Ports;
use super::program::Program;
use crate::config::{Config, GuardUse, RESERVED_ENV};
use crate::error::{Cause, Error, Kind, Result};
use crate::supervisor::{FailureKind, Generation, SpawnFailure, WorkerId};
use crate::sys::process;
use crate::sys::spawn::{Credentials, Failure, Plan, Spawner, Started, Step};

/// Everything about workers that does not change from one to the next.
pub(super) struct Launcher {
    program: Program,
    /// What each generation runs that may still start workers.
    pinned: BTreeMap<Generation, Pinned>,
    /// The master's own, as far as workers have it.
    env: BTreeMap<OsString, OsString>,
    /// What the settings add, with placeholders.
    own_env: Vec<(OsString, OsString)>,
    ports: Option<Ports>,
    credentials: Option<Credentials>,
    guard: GuardUse,
    watchdog: Option<Duration>,
    null: File,
}

/// What differs from worker to worker.
pub(super) struct Newcomer<'a> {
    pub(super) worker: WorkerId,
    pub(super) slot: usize,
    pub(super) generation: Generation,
    pub(super) notify: String,
    pub(super) listeners: Vec<(&'a str, BorrowedFd<'a>)>,
    pub(super) channel: BorrowedFd<'a>,
    pub(super) dialect: Dialect,
    /// Its stdout and stderr, where they are captured.
    pub(super) output: Option<[BorrowedFd<'a>; 2]>,
    /// Where an argument or a variable asks for one.
    pub(super) port: Option<u16>,
    /// Where it announces itself to the guard, if there is one.
    pub(super) guard: Option<BorrowedFd<'a>>,
}

impl Newcomer<'_> {
    fn values(&self) -> Values {
        Values { slot: self.slot, worker: self.worker, generation: self.generation, port: self.port }
    }
}

impl Launcher {
    /// Refuses what could never start, before anything is bound or spawned.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let program = Program::of(config)?;
        let run_as = identity::of(config)?;
        let null = File::open("/dev/null").map_err(|error| Error::start("/dev/null", error))?;
        let own_env = config.env.clone();
        let mut env: BTreeMap<OsString, OsString> = env::vars_os().collect();
        env.retain(|key, _| !RESERVED_ENV.iter().any(|reserved| *reserved == key));
        let uid = run_as.as_ref().and_then(|run_as| run_as.credentials.uid);
        if let Some(uid) = uid.filter(|uid| *uid != process::effective_user()) {
            identity::describe(&mut env, uid, run_as.as_ref().and_then(|run_as| run_as.account.as_ref()));
        }
        env.retain(|key, _| !own_env.iter().any(|(own, _)| own == key));
        let mut texts = program.args().chain(own_env.iter().map(|(_, value)| value.as_os_str()));
        let ports = texts.any(placeholder::asks_for_port).then(Ports::new);
        drop(texts);
        let (watchdog, pinned) = (config.watchdog, BTreeMap::new());
        let mut launcher = Launcher {
            program,
            pinned,
            env,
            own_env,
            ports,
            credentials: run_as.map(|run_as| run_as.credentials),
            guard: config.guard,
            watchdog,
            null,
        };
        launcher.pin(Generation::FIRST).map_err(|failure| Error::new(Kind::Start, failure.reason))?;
        Ok(launcher)
    }

    /// Reads the program's path for a generation that starts its first worker.
    pub(super) fn pin(&mut self, generation: Generation) -> Result<(), SpawnFailure> {
        if !self.pinned.contains_key(&generation) {
            let pinned = Pinned::read(&self.program).map_err(|failure| self.failure(failure))?;
            self.pinned.insert(generation, pinned);
        }
        Ok(())
    }

    /// Lets go of a generation's program.
    pub(super) fn forget(&mut self, generation: Generation) {
        self.pinned.remove(&generation);
    }

    /// Whether a worker of this generation, pinned already, is to have a guard.
    pub(super) fn wants_guard(&self, generation: Generation) -> bool {
        match self.guard {
            GuardUse::Auto => self.pinned.get(&generation).is_some_and(Pinned::clears_death_signal),
            GuardUse::Always => true,
            GuardUse::Never => false,
        }
    }

    /// A port for the next worker, where its program asks for one.
    pub(super) fn port(&mut self, is_given: impl Fn(u16) -> bool) -> io::Result<Option<u16>> {
        self.ports.as_mut().map(|ports| ports.take(is_given)).transpose()
    }

    /// Whether workers run as somebody else than the master.
    pub(super) fn changes_user(&self) -> bool {
        self.worker_uid() != process::effective_user()
    }

    pub(super) fn worker_uid(&self) -> u32 {
        self.credentials
            .as_ref()
            .and_then(|credentials| credentials.uid)
            .unwrap_or_else(process::effective_user)
    }

    /// Starts one worker of its generation's program. The error names the program, the step and the cause.
    pub(super) fn spawn(
        &mut self,
        spawner: &mut Spawner,
        newcomer: &Newcomer<'_>,
    ) -> Result<Started, SpawnFailure> {
        self.pin(newcomer.generation)?;
        let pinned = &self.pinned[&newcomer.generation];
        let mut fds: Vec<BorrowedFd<'_>> = newcomer.listeners.iter().map(|(_, socket)| *socket).collect();
        fds.push(newcomer.channel);
        let replacements = pinned.replacements();
        let command = pinned.command(&self.program, &replacements, newcomer.values());
        let plan = Plan {
            image: pinned.image(&command),
            args: command.argv.iter().map(OsString::as_os_str).collect(),
            env: self.environment(newcomer, &replacements),
            own_pid: self.own_pid(newcomer),
            cwd: pinned.cwd(),
            credentials: self.credentials.as_ref(),
            stdin: self.null.as_fd(),
            output: newcomer.output,
            fds,
            guard: newcomer.guard,
        };
        spawner.spawn(&plan).map_err(|failure| self.failure(failure))
    }

    /// As systemd does it: descriptors and watchdog are meant for this process, not for its children.
    fn own_pid(&self, newcomer: &Newcomer<'_>) -> Vec<&'static str> {
        let listens = (!newcomer.listeners.is_empty()).then_some("LISTEN_PID");
        let watched = self.watchdog.map(|_| "WATCHDOG_PID");
        listens.into_iter().chain(watched).collect()
    }

    fn environment(&self, newcomer: &Newcomer<'_>, replacements: &Replacements) -> Vec<Vec<u8>> {
        let channel = 3 + newcomer.listeners.len();
        let mut own = vec![
            ("PROTEUS_WORKER_ID", newcomer.worker.to_string()),
            ("PROTEUS_SLOT", newcomer.slot.to_string()),
            ("PROTEUS_GENERATION", newcomer.generation.to_string()),
            ("NOTIFY_SOCKET", newcomer.notify.clone()),
        ];
        match newcomer.dialect {
            Dialect::Own => own.push(("PROTEUS_CHANNEL_FD", channel.to_string())),
            Dialect::Node => own.extend([
                ("NODE_CHANNEL_FD", channel.to_string()),
                ("NODE_CHANNEL_SERIALIZATION_MODE", "json".to_owned()),
                // Makes it a worker of Node's own `cluster`, so that it asks the master for its listeners.
                ("NODE_UNIQUE_ID", newcomer.worker.to_string()),
            ]),
        }
        if let Some(watchdog) = self.watchdog {
            own.push(("WATCHDOG_USEC", watchdog.as_micros().to_string()));
        }
        if !newcomer.listeners.is_empty() {
            let names: Vec<&str> = newcomer.listeners.iter().map(|(name, _)| *name).collect();
            own.push(("LISTEN_FDS", newcomer.listeners.len().to_string()));
            own.push(("LISTEN_FDNAMES", names.join(":")));
        }
        let values = newcomer.values();
        let inherited = self.env.iter().map(|(key, value)| (key, Cow::Borrowed(value.as_os_str())));
        let set = self.own_env.iter().map(|(key, value)| (key, placeholder::fill(value, values)));
        inherited
            .chain(set)
            .map(|(key, value)| pair(key, &replacements.apply(value)))
            .chain(own.iter().map(|(key, value)| pair(key.as_ref(), value.as_ref())))
            .collect()
    }

    fn failure(&self, Failure { step, cause }: Failure) -> SpawnFailure {
        let passing = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY];
        let is_passing = cause.raw_os_error().is_some_and(|errno| passing.contains(&errno));
        let kind = if is_passing { FailureKind::Passing } else { FailureKind::Lasting };
        let hint = self.hint(step, &cause);
        SpawnFailure { kind, reason: format!("{step} {}: {}{hint}", self.program, Cause(&cause)) }
    }

    /// What the kernel's word alone would leave the reader to find out.
    fn hint(&self, step: Step, cause: &io::Error) -> String {
        match (step, cause.raw_os_error()) {
            (Step::Exec, Some(libc::ENOENT)) if self.program.is_there() => {
                " (the file is there; the interpreter that it names is not)".to_owned()
            }
            (Step::Exec, Some(libc::ENOEXEC)) => {
                " (a script needs a first line such as #!/bin/sh)".to_owned()
            }
            (Step::Exec, _) => self.program.counts_from(cause),
            _ => String::new(),
        }
    }
}

/// A lack of descriptors or memory on the way to a spawn.
pub(super) fn passing(what: &str, cause: &io::Error) -> SpawnFailure {
    SpawnFailure { kind: FailureKind::Passing, reason: format!("{what}: {}", Cause(cause)) }
}

fn pair(key: &OsStr, value: &OsStr) -> Vec<u8> {
    [key.as_bytes(), b"=", value.as_bytes()].concat()
}
