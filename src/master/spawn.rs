//! What a worker is started with: its program, environment and descriptors.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Config, RESERVED_ENV};
use crate::error::{Cause, Error, Kind, Result};
use crate::supervisor::{FailureKind, Generation, SpawnFailure, WorkerId};
use crate::sys::process::{self, Child};
use crate::sys::spawn::{Credentials, Failure, ListenPid, Plan, Spawner, Step};
use crate::sys::user;

/// Files that are not programs by themselves: `node` runs them.
const SCRIPTS: [&str; 3] = ["js", "mjs", "cjs"];

/// Everything about workers that does not change from one to the next.
pub(super) struct Launcher {
    program: Program,
    env: BTreeMap<OsString, OsString>,
    cwd: Option<PathBuf>,
    credentials: Option<Credentials>,
    null: File,
}

/// The program as the settings name it; its path is looked at anew for each worker.
#[derive(Debug)]
struct Program {
    place: Place,
    args: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A file, by its absolute path; symlinks in it are followed at each start.
    Path(PathBuf),
    /// Looked up in PATH at each start.
    Name(OsString),
}

/// What differs from worker to worker.
pub(super) struct Newcomer<'a> {
    pub(super) worker: WorkerId,
    pub(super) slot: usize,
    pub(super) generation: Generation,
    pub(super) notify: String,
    pub(super) listeners: Vec<(&'a str, BorrowedFd<'a>)>,
    pub(super) channel: BorrowedFd<'a>,
}

impl Launcher {
    /// Refuses what could never start, before anything is bound or spawned.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let program = Program::of(config)?;
        program.check()?;
        let credentials = user::credentials(config.user.as_deref(), config.group.as_deref())
            .map_err(|error| Error::new(Kind::Start, error))?;
        let cwd = config.cwd.as_deref().map(check_folder).transpose()?;
        let null = File::open("/dev/null").map_err(|error| Error::start("/dev/null", error))?;
        let mut env: BTreeMap<OsString, OsString> =
            env::vars_os().chain(config.env.iter().cloned()).collect();
        env.retain(|key, _| !RESERVED_ENV.iter().any(|reserved| *reserved == key));
        Ok(Launcher { program, env, cwd, credentials, null })
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

    /// Starts one worker. The error names the program, the step and the cause.
    pub(super) fn spawn(
        &self,
        spawner: &mut Spawner,
        newcomer: &Newcomer<'_>,
    ) -> Result<Child, SpawnFailure> {
        let path = self.program.path();
        let path = path.map_err(|error| self.failure(Failure { step: Step::Exec, cause: error }))?;
        let mut fds: Vec<BorrowedFd<'_>> = newcomer.listeners.iter().map(|(_, socket)| *socket).collect();
        fds.push(newcomer.channel);
        let argv0 = self.program.argv0(&path);
        let listen_pid = if newcomer.listeners.is_empty() { ListenPid::Omit } else { ListenPid::Set };
        let plan = Plan {
            program: path.as_os_str(),
            args: std::iter::once(argv0).chain(self.program.args.iter().map(OsString::as_os_str)).collect(),
            env: self.environment(newcomer),
            listen_pid,
            cwd: self.cwd.as_deref().map(Path::as_os_str),
            credentials: self.credentials.as_ref(),
            stdin: self.null.as_fd(),
            fds,
        };
        spawner.spawn(&plan).map_err(|failure| self.failure(failure))
    }

    fn environment(&self, newcomer: &Newcomer<'_>) -> Vec<Vec<u8>> {
        let channel = 3 + newcomer.listeners.len();
        let mut own = vec![
            ("PROTEUS_WORKER_ID", newcomer.worker.to_string()),
            ("PROTEUS_SLOT", newcomer.slot.to_string()),
            ("PROTEUS_GENERATION", newcomer.generation.to_string()),
            ("PROTEUS_CHANNEL_FD", channel.to_string()),
            ("NOTIFY_SOCKET", newcomer.notify.clone()),
        ];
        if !newcomer.listeners.is_empty() {
            let names: Vec<&str> = newcomer.listeners.iter().map(|(name, _)| *name).collect();
            own.push(("LISTEN_FDS", newcomer.listeners.len().to_string()));
            own.push(("LISTEN_FDNAMES", names.join(":")));
        }
        let inherited = self.env.iter().map(|(key, value)| pair(key, value));
        inherited.chain(own.iter().map(|(key, value)| pair(key.as_ref(), value.as_ref()))).collect()
    }

    fn failure(&self, Failure { step, cause }: Failure) -> SpawnFailure {
        let passing = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY];
        let is_passing = cause.raw_os_error().is_some_and(|errno| passing.contains(&errno));
        let kind = if is_passing { FailureKind::Passing } else { FailureKind::Lasting };
        let hint = self.hint(step, &cause);
        SpawnFailure { kind, reason: format!("{step} {}: {}{hint}", self.program, Cause(&cause)) }
    }

    /// What the kernel's word alone would leave the reader to find out.
    fn hint(&self, step: Step, cause: &io::Error) -> &'static str {
        let is_there = || self.program.path().is_ok_and(|path| path.exists());
        match (step, cause.raw_os_error()) {
            (Step::Exec, Some(libc::ENOENT)) if is_there() => {
                " (the file is there; the interpreter that it names is not)"
            }
            (Step::Exec, Some(libc::ENOEXEC)) => " (a script needs a first line such as #!/bin/sh)",
            _ => "",
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

fn check_folder(path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::start(format_args!("cwd {}", path.display()), error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(Error::new(Kind::Start, format!("cwd {}: not a directory", path.display())));
    }
    std::path::absolute(path).map_err(failed)
}

impl Program {
    fn of(config: &Config) -> Result<Self> {
        let args = config.args.clone();
        let Some(exec) = &config.exec else {
            let own = || env::args_os().skip(1).collect();
            return Ok(Program { place: Place::Path(running_executable()?), args: args.unwrap_or_else(own) });
        };
        let args = args.unwrap_or_default();
        if exec.extension().is_some_and(|extension| SCRIPTS.iter().any(|script| *script == extension)) {
            let script = absolute(exec)?.into_os_string();
            let args = std::iter::once(script).chain(args).collect();
            return Ok(Program { place: Place::Name("node".into()), args });
        }
        let place = if exec.as_os_str().as_bytes().contains(&b'/') {
            Place::Path(absolute(exec)?)
        } else {
            Place::Name(exec.clone().into_os_string())
        };
        Ok(Program { place, args })
    }

    /// What lies there now.
    fn path(&self) -> io::Result<PathBuf> {
        match &self.place {
            Place::Path(path) => Ok(path.clone()),
            Place::Name(name) => find_in_path(name),
        }
    }

    fn argv0<'a>(&'a self, path: &'a Path) -> &'a OsStr {
        match &self.place {
            Place::Path(_) => path.as_os_str(),
            Place::Name(name) => name,
        }
    }

    fn check(&self) -> Result<()> {
        let failed = |error| Error::start(format_args!("exec {self}"), error);
        check_executable(&self.path().map_err(failed)?).map_err(failed)?;
        match self.args.first() {
            Some(script) if self.place == Place::Name("node".into()) => {
                let failed =
                    |error| Error::start(format_args!("exec {}", Path::new(script).display()), error);
                check_readable(Path::new(script)).map_err(failed)
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Path(path) => path.display().fmt(f),
            Place::Name(name) => Path::new(name).display().fmt(f),
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::start(format_args!("exec {}", path.display()), error))
}

fn check_readable(path: &Path) -> io::Result<()> {
    refuse_directory(&File::open(path)?.metadata()?)
}

fn refuse_directory(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"))
    } else {
        Ok(())
    }
}

fn check_executable(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    refuse_directory(&metadata)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not executable (chmod +x?)"));
    }
    Ok(())
}

fn find_in_path(name: &OsStr) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| check_executable(file).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such program in PATH"))
}

/// The path that this process was started as, so that a restart runs what lies there by then.
/// Where that no longer leads to this very program, the path that the kernel knows.
fn running_executable() -> Result<PathBuf> {
    let failed = |error| Error::start("the running executable", error);
    let argv0 = env::args_os().next().unwrap_or_default();
    let started_as = if argv0.as_bytes().contains(&b'/') {
        std::path::absolute(Path::new(&argv0)).map_err(failed)?
    } else {
        find_in_path(&argv0).unwrap_or_default()
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match (identity(&started_as), identity(Path::new("/proc/self/exe"))) {
        (Some(by_name), Some(running)) if by_name == running => Ok(started_as),
        _ => env::current_exe().map_err(failed),
    }
}
