//! What a worker is started with: its program, environment and descriptors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::dialect::Dialect;
use super::identity;
use super::offload::within;
use super::pinned::{Location, Pinned};
use super::placeholder::{self, Values};
use super::ports::Ports;
use super::program::Program;
use crate::config::{Config, GuardUse, RESERVED_ENV};
use crate::error::{Cause, Error, Kind, Result};
use crate::journal;
use crate::supervisor::{FailureKind, Generation, SpawnFailure, WorkerId};
use crate::sys::attempt::Attempt;
use crate::sys::process;
use crate::sys::spawn::{Credentials, Failure, Plan, Spawner, Started, Step};

/// The program of a worker has so long to be found, and its process to begin. Only a file system that does not answer
/// takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Everything about workers that does not change from one to the next.
pub(super) struct Launcher {
    program: Arc<Program>,
    /// What each generation runs that may still start workers.
    pinned: BTreeMap<Generation, Arc<Pinned>>,
    /// The master's own, as far as workers have it.
    env: BTreeMap<OsString, OsString>,
    /// What the settings add, with placeholders.
    own_env: Vec<(OsString, OsString)>,
    ports: Option<Ports>,
    credentials: Option<Arc<Credentials>>,
    guard: GuardUse,
    watchdog: Option<Duration>,
    /// The limit of open files that workers have; `None` is the master's own.
    open_files: Option<u64>,
    null: Arc<File>,
}

/// What differs from worker to worker.
pub(super) struct Newcomer {
    pub(super) worker: WorkerId,
    pub(super) slot: usize,
    pub(super) generation: Generation,
    pub(super) notify: String,
    pub(super) listeners: Vec<(String, Arc<OwnedFd>)>,
    pub(super) channel: OwnedFd,
    pub(super) dialect: Dialect,
    /// Its stdout and stderr, where they are captured.
    pub(super) output: Option<[OwnedFd; 2]>,
    /// Where an argument or a variable asks for one.
    pub(super) port: Option<u16>,
    /// Where it announces itself to the guard, if there is one.
    pub(super) guard: Option<OwnedFd>,
}

/// A worker to be started, with all that it is started with: whoever has it can do it.
pub(super) struct Job {
    newcomer: Newcomer,
    program: Arc<Program>,
    pinned: Arc<Pinned>,
    env: Vec<(OsString, OsString)>,
    own_pid: Vec<&'static str>,
    credentials: Option<Arc<Credentials>>,
    open_files: Option<u64>,
    null: Arc<File>,
}

impl Newcomer {
    fn values(&self) -> Values {
        Values { slot: self.slot, worker: self.worker, generation: self.generation, port: self.port }
    }
}

impl Launcher {
    /// Refuses what could never start, before anything is bound or spawned. Workers may have so many files open.
    pub(super) fn new(config: &Config, open_files: Option<u64>) -> Result<Self> {
        let (program, first) = look_for_program(config)?;
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
        let pinned = BTreeMap::from([(Generation::FIRST, Arc::new(first))]);
        let credentials = run_as.map(|run_as| Arc::new(run_as.credentials));
        let (program, null) = (Arc::new(program), Arc::new(null));
        let (guard, watchdog) = (config.guard, config.watchdog);
        Ok(Launcher { program, pinned, env, own_env, ports, credentials, guard, watchdog, open_files, null })
    }

    /// Whether this generation's program is known.
    pub(super) fn has_pinned(&self, generation: Generation) -> bool {
        self.pinned.contains_key(&generation)
    }

    /// What reads the paths of the program for a generation that starts its first worker; it may sleep for as long as
    /// a file system does.
    pub(super) fn reader(&self) -> impl FnOnce() -> Result<Pinned, SpawnFailure> + Send + 'static {
        let program = Arc::clone(&self.program);
        move || Pinned::read(&program).map_err(|failure| told(&program, failure))
    }

    /// Holds on to the program of a generation.
    pub(super) fn pin(&mut self, generation: Generation, pinned: Pinned) {
        self.note_hint(&pinned);
        self.pinned.insert(generation, Arc::new(pinned));
    }

    /// What the log is to say about the program of the first generation.
    pub(super) fn note_first(&self) {
        self.pinned.values().for_each(|pinned| self.note_hint(pinned));
    }

    fn note_hint(&self, pinned: &Pinned) {
        if let Some(hint) = pinned.hint() {
            journal::info!("exec {}: {hint}", self.program);
        }
    }

    /// Whose words the workers of a generation speak.
    pub(super) fn dialect(&self, generation: Generation) -> Dialect {
        self.pinned.get(&generation).map_or(Dialect::Own, |pinned| pinned.dialect())
    }

    /// The failure of what has not come back in time.
    pub(super) fn no_answer(&self, kind: FailureKind) -> SpawnFailure {
        SpawnFailure { kind, reason: format!("{} {}: {}", Step::Exec, self.program, silence(&self.program)) }
    }

    /// Lets go of a generation's program.
    pub(super) fn forget(&mut self, generation: Generation) {
        self.pinned.remove(&generation);
    }

    /// Whether a worker of this generation, pinned already, is to have a guard.
    pub(super) fn wants_guard(&self, generation: Generation) -> bool {
        match self.guard {
            GuardUse::Auto => self.pinned.get(&generation).is_some_and(|pinned| pinned.clears_death_signal()),
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

    /// All that a worker is started with, of its generation's program.
    pub(super) fn job(&self, newcomer: Newcomer) -> Option<Job> {
        let pinned = Arc::clone(self.pinned.get(&newcomer.generation)?);
        let (env, own_pid) = (self.environment(&newcomer), self.own_pid(&newcomer));
        let (program, credentials) = (Arc::clone(&self.program), self.credentials.clone());
        let (open_files, null) = (self.open_files, Arc::clone(&self.null));
        Some(Job { newcomer, program, pinned, env, own_pid, credentials, open_files, null })
    }

    /// As systemd does it: descriptors and watchdog are meant for this process, not for its children.
    fn own_pid(&self, newcomer: &Newcomer) -> Vec<&'static str> {
        let listens = (!newcomer.listeners.is_empty()).then_some("LISTEN_PID");
        let watched = self.watchdog.map(|_| "WATCHDOG_PID");
        listens.into_iter().chain(watched).collect()
    }

    fn environment(&self, newcomer: &Newcomer) -> Vec<(OsString, OsString)> {
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
            let names: Vec<&str> = newcomer.listeners.iter().map(|(name, _)| name.as_str()).collect();
            own.push(("LISTEN_FDS", newcomer.listeners.len().to_string()));
            own.push(("LISTEN_FDNAMES", names.join(":")));
        }
        let values = newcomer.values();
        let inherited = self.env.iter().map(|(key, value)| (key.clone(), value.clone()));
        let set = self.own_env.iter();
        let set = set.map(|(key, value)| (key.clone(), placeholder::fill(value, values).into_owned()));
        let own = own.into_iter().map(|(key, value)| (key.into(), value.into()));
        inherited.chain(set).chain(own).collect()
    }
}

impl Job {
    pub(super) fn worker(&self) -> WorkerId {
        self.newcomer.worker
    }

    pub(super) fn generation(&self) -> Generation {
        self.newcomer.generation
    }

    /// What it runs.
    pub(super) fn pinned(&self) -> &Arc<Pinned> {
        &self.pinned
    }

    /// Starts the worker of a program that lies there. The error names the program, the step and the cause. Sleeps for
    /// as long as the file systems of the program do, or until the attempt is given up.
    pub(super) fn run(
        self,
        location: &Location,
        spawner: &mut Spawner,
        attempt: &Attempt,
    ) -> Result<Started, SpawnFailure> {
        let command = self.pinned.command(&self.program, location, self.newcomer.values());
        let text = |(key, value): &(OsString, OsString)| {
            pair(key, &location.replacements.apply(Cow::Borrowed(value)))
        };
        let listeners = self.newcomer.listeners.iter().map(|(_, socket)| socket.as_fd());
        let plan = Plan {
            image: self.pinned.image(&command),
            args: command.argv.iter().map(OsString::as_os_str).collect(),
            env: self.env.iter().map(text).collect(),
            own_pid: self.own_pid.clone(),
            cwd: self.pinned.cwd(),
            credentials: self.credentials.as_deref(),
            stdin: self.null.as_fd(),
            output: self.newcomer.output.as_ref().map(|both| both.each_ref().map(AsFd::as_fd)),
            fds: listeners.chain([self.newcomer.channel.as_fd()]).collect(),
            open_files: self.open_files,
            guard: self.newcomer.guard.as_ref().map(AsFd::as_fd),
        };
        spawner.spawn(&plan, attempt).map_err(|failure| told(&self.program, failure))
    }
}

/// The program of the settings and what it is now, unless its file systems do not answer.
fn look_for_program(config: &Config) -> Result<(Program, Pinned)> {
    let (named, config) = (config.exec.clone(), config.clone());
    let found = within(PATIENCE, move || {
        let program = Program::of(&config)?;
        let pinned = Pinned::read(&program);
        let pinned = pinned.map_err(|failure| Error::new(Kind::Start, told(&program, failure).reason))?;
        Ok((program, pinned))
    });
    found.unwrap_or_else(|| {
        let named = named.map_or_else(|| "the running executable".into(), |exec| exec.display().to_string());
        Err(Error::new(Kind::Start, format!("exec {named}: {NO_ANSWER}")))
    })
}

const NO_ANSWER: &str = "its file system has not answered for 5 s";

/// What there is to say of a file system that does not answer: the program's, or another one on the way.
fn silence(program: &Program) -> String {
    let cwd = program.cwd().map(|cwd| format!(" (or that of cwd {})", cwd.display())).unwrap_or_default();
    format!("{NO_ANSWER}{cwd}")
}

fn told(program: &Program, Failure { step, cause }: Failure) -> SpawnFailure {
    let passing = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY];
    let is_passing = cause.raw_os_error().is_some_and(|errno| passing.contains(&errno));
    let kind = if is_passing { FailureKind::Passing } else { FailureKind::Lasting };
    let hint = hint(program, step, &cause);
    SpawnFailure { kind, reason: format!("{step} {program}: {}{hint}", Cause(&cause)) }
}

/// What the kernel's word alone would leave the reader to find out.
fn hint(program: &Program, step: Step, cause: &io::Error) -> String {
    match (step, cause.raw_os_error()) {
        (Step::Exec, Some(libc::ENOENT)) if program.is_there() => {
            " (the file is there; the interpreter that it names is not)".to_owned()
        }
        (Step::Exec, Some(libc::ENOEXEC)) => " (a script needs a first line such as #!/bin/sh)".to_owned(),
        (Step::Exec, _) => program.counts_from(cause),
        _ => String::new(),
    }
}

/// A lack of descriptors or memory on the way to a spawn.
pub(super) fn passing(what: &str, cause: &io::Error) -> SpawnFailure {
    SpawnFailure { kind: FailureKind::Passing, reason: format!("{what}: {}", Cause(cause)) }
}

fn pair(key: &OsStr, value: &OsStr) -> Vec<u8> {
    [key.as_bytes(), b"=", value.as_bytes()].concat()
}
