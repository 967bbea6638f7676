//! Everything a master takes hold of before the first worker: what cannot be had is a start-up error,
//! and what was taken is given back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mio::{Poll, Waker};

use super::birth::Births;
use super::descriptors;
use super::guard::Watch;
use super::listen::Binds;
use super::listener::{self, Listeners, Privilege};
use super::pidfile::PidFile;
use super::revival::Revival;
use super::sampler::Sampler;
use super::signals::{ExitSource, Signals};
use super::socketwatch::{self, SocketWatch};
use super::spawn::Launcher;
use super::token::Source;
use super::{BUFFER, Master, Role};
use crate::api;
use crate::config::{Config, DEFAULT_WORKER_TIMEOUT, ListenerConfig};
use crate::dispatch::{Audience, Dispatch};
use crate::error::{Error, Result};
use crate::handle::{Command, Handle, Word};
use crate::journal;
use crate::peers::Peers;
use crate::status::{ListenerStatus, Status};
use crate::supervisor::{Ending, Moment, Policy, Requests, Sockets, Supervisor};
use crate::sys::inotify::Inotify;
use crate::sys::limit::OpenFiles;
use crate::sys::process::has_pidfd;

/// Signals that were taken before there was a cluster, because the process is nothing but a master.
/// They stay here for good: given back, one that comes while the process exits would still kill it.
static EARLY: Mutex<Option<Arc<Signals>>> = Mutex::new(None);

/// Takes the orders' signals over at once, so that none that comes before the cluster kills it.
pub fn own_process() {
    match Signals::take(true, exit_source(own_role())) {
        Ok(signals) => *EARLY.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(signals)),
        // `Cluster::new` takes them itself then, and says what is wrong.
        Err(error) => journal::debug!("signals: {error}"),
    }
}

/// Looks for everything that a worker is started with (program, user, group, directory), and starts nothing.
pub fn check(config: &Config) -> Result<()> {
    Launcher::new(config, None)?;
    config.listeners.iter().try_for_each(check_owner)?;
    config.api_token().map(drop)
}

fn check_owner(listener: &ListenerConfig) -> Result<()> {
    let found = listener::access(listener).map(drop);
    found.map_err(|error| {
        Error::start(format_args!("listener {} at {}", listener.name, listener.address), error)
    })
}

fn own_role() -> Role {
    if std::process::id() == 1 { Role::Init } else { Role::Guest }
}

fn exit_source(role: Role) -> ExitSource {
    match role {
        Role::Guest if has_pidfd() => ExitSource::Pidfds,
        // Orphans have no pidfd.
        Role::Guest | Role::Init => ExitSource::Sigchld,
    }
}

/// A master that holds all it needs and has not started.
pub(crate) struct Foundation {
    config: Config,
    role: Role,
    supervisor: Supervisor,
    commands: Receiver<Command>,
    handle: Handle,
    waker: Arc<Waker>,
    peers: Arc<Peers>,
    audience: Arc<Audience>,
    poll: Poll,
    api: Option<api::Bound>,
    listeners: Listeners,
    news: Option<Arc<Inotify>>,
    launcher: Launcher,
    pid_file: Option<PidFile>,
    signals: Arc<Signals>,
    /// Put back at the end.
    _open_files: OpenFiles,
    /// Last, so that what the others say as they go is still written.
    log: journal::Hold,
}

impl Foundation {
    pub(crate) fn lay(config: Config) -> Result<Self> {
        let log = journal::start().map_err(|error| Error::start("the log thread", error))?;
        let early = EARLY.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let role = if early.is_some() { own_role() } else { Role::Guest };
        let signals = match early.filter(|_| config.handle_signals) {
            Some(signals) => signals,
            None => Signals::take(config.handle_signals, exit_source(role))
                .map(Arc::new)
                .map_err(|error| Error::start("signals", error))?,
        };
        let open_files =
            OpenFiles::raise().map_err(|error| Error::start("the limit of open files", error))?;
        descriptors::check(&config, open_files.most())?;
        let launcher = Launcher::new(&config, Some(open_files.usual()))?;
        launcher.note_first();
        let pid_file = config.pid_file.as_deref().map(PidFile::take).transpose()?;
        let privilege = if launcher.changes_user() { Privilege::Less } else { Privilege::Same };
        let news = socketwatch::news();
        let mut listeners = Listeners::bind(&config.listeners, config.workers, privilege, news.as_deref())?;
        let api = config.api.as_ref().map(|config| api::Bound::bind(config, news.as_deref())).transpose()?;
        listeners.api_file = api.as_ref().and_then(api::Bound::watched_file);
        let poll = Poll::new().map_err(|error| Error::start("the event loop", error))?;
        let waker = Waker::new(poll.registry(), Source::Commands.token())
            .map_err(|error| Error::start("the event loop", error))?;
        let supervisor = Supervisor::new(policy(&config));
        let rows = listeners.addresses().map(|(name, address)| ListenerStatus::new(name, address)).collect();
        let first = Status::of(supervisor.status(Moment::default()), rows);
        configure_log(&config)?;
        let (sender, commands) = channel();
        let (waker, peers, audience) = (Arc::new(waker), Arc::new(Peers::new()), Arc::<Audience>::default());
        let worker_timeout = config.api.as_ref().map_or(DEFAULT_WORKER_TIMEOUT, |api| api.worker_timeout);
        let (to, hears) = (Arc::clone(&peers), Arc::clone(&audience));
        let handle = Handle::new(sender, Arc::clone(&waker), first, to, hears, worker_timeout);
        Ok(Foundation {
            config,
            role,
            supervisor,
            commands,
            handle,
            waker,
            peers,
            audience,
            poll,
            api,
            listeners,
            news,
            launcher,
            pid_file,
            signals,
            _open_files: open_files,
            log,
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Starts the workers and runs until they are gone; then everything is given back.
    pub(crate) fn run(self) -> Result<Ending> {
        let with_pidfd = self.signals.exits() == ExitSource::Pidfds;
        let births = Births::new(&self.waker, with_pidfd).map_err(|error| Error::start("spawning", error))?;
        let binds = Binds::new(Arc::clone(&self.waker));
        let revival = Revival::new(Arc::clone(&self.waker));
        let sockets = self.news.map(|news| SocketWatch::new(news, Arc::clone(&self.waker)));
        let dispatch = Dispatch::start(Arc::clone(&self.audience), self.waker)
            .map_err(|error| Error::start("the thread of message listeners", error))?;
        let registry = self.poll.registry().try_clone().map(Arc::new);
        let registry = registry.map_err(|error| Error::start("the event loop", error))?;
        self.handle.start();
        let api_address = self.api.as_ref().map(api::Bound::address);
        let memory = self.config.max_memory.map(|_| Sampler::start(self.handle.clone())).transpose();
        let memory = memory.map_err(|error| Error::start("the thread that looks at memory", error))?;
        let mut serving = self.api.map(|api| api.serve(self.handle)).transpose()?;
        let master = Master {
            config: self.config,
            started: Instant::now(),
            supervisor: self.supervisor,
            registry,
            poll: self.poll,
            signals: self.signals,
            commands: self.commands,
            launcher: self.launcher,
            listeners: self.listeners,
            binds,
            guard: Watch::Unneeded,
            sockets,
            births,
            revival,
            processes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls: BTreeSet::new(),
            role: self.role,
            gathered: Moment::default(),
            outcomes: VecDeque::new(),
            events: VecDeque::new(),
            unfinished: Vec::new(),
            requests: Requests::new(),
            asking: BTreeMap::new(),
            peers: self.peers,
            audience: self.audience,
            dispatch,
            buffer: vec![0; BUFFER],
            api_address,
        };
        master
            .watch(Source::Signals, master.signals.pipe().as_fd())
            .map_err(|error| Error::start("signals", error))?;
        master.watch_listeners().map_err(|error| Error::start("the watch over the listeners", error))?;
        master.watch_sockets().map_err(|error| Error::start("the files of sockets", error))?;
        let (ending, waiting) = master.run();
        serving.as_mut().map(api::Serving::close);
        drop(self.pid_file);
        if let Ok(ending) = &ending {
            for caller in waiting {
                // Whoever asked may have gone; the answer is then nobody's.
                drop(caller.send(Word::Over(ending.clone())));
            }
        }
        drop(serving);
        drop(memory);
        drop(self.log);
        ending
    }
}

/// Last, when nothing else can fail any more: who may not start must not touch the file of one who has.
#[cfg(feature = "logger")]
fn configure_log(config: &Config) -> Result<()> {
    crate::logger::configure(config.log_file.clone(), config.log_format)
}

#[cfg(not(feature = "logger"))]
fn configure_log(config: &Config) -> Result<()> {
    use crate::config::LogFormat;
    match (&config.log_file, config.log_format) {
        (None, LogFormat::Text) => Ok(()),
        (Some(_), _) | (_, LogFormat::Json) => {
            Err(Error::setting("settings `logFile` and `logFormat` take the feature `logger` of this crate"))
        }
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        workers: config.workers,
        max_fork_count: config.max_fork_count,
        stable_after: config.stable_after,
        min_ready: config.min_ready,
        ready: config.ready,
        ready_timeout: config.ready_timeout,
        min_uptime: config.min_uptime,
        backoff_initial: config.backoff.initial,
        backoff_max: config.backoff.max,
        surge: config.surge,
        canary: config.canary,
        disconnect_timeout: config.disconnect_timeout,
        watchdog: config.watchdog,
        max_lifetime: config.max_lifetime,
        max_memory: config.max_memory,
        sockets: if config.listeners.iter().any(|listener| listener.reuse_port) {
            Sockets::PerSlot
        } else {
            Sockets::Shared
        },
    }
}
