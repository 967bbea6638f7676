//! What the workers run, as the settings name it: paths that only the start and a restart look at.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::dialect::is_script;
use super::placeholder;
use crate::config::{Config, Speaks};
use crate::error::{Cause, Error, Kind, Result};

/// The program and the working directory as the settings name them.
#[derive(Debug)]
pub(super) struct Program {
    place: Place,
    /// A file of code that the program at `place` runs, as its first argument.
    script: Option<PathBuf>,
    args: Vec<OsString>,
    cwd: Option<PathBuf>,
    /// The PATH of the workers, where `env` sets one.
    search: Option<OsString>,
    /// `exec` as it is written, where it is relative.
    relative: Option<PathBuf>,
    speaks: Speaks,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file, by its absolute path.
    Path(PathBuf),
    /// Looked up in PATH.
    Name(OsString),
}

impl Program {
    /// Refuses what could never start.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let program = Program::named(config)?;
        program.check()?;
        Ok(program)
    }

    fn named(config: &Config) -> Result<Self> {
        let args = config.args.clone();
        let cwd = config.cwd.as_deref().map(check_folder).transpose()?;
        let path_of_env = config.env.iter().rev().find(|(key, _)| key == "PATH");
        let search = path_of_env.map(|(_, path)| path.clone());
        let speaks = config.speaks;
        let Some(exec) = &config.exec else {
            // The master's own are meant as they are.
            let own = || env::args_os().skip(1).map(|arg| placeholder::literal(&arg)).collect();
            let (args, place) = (args.unwrap_or_else(own), Place::Path(running_executable()?));
            return Ok(Program { place, script: None, args, cwd, search, relative: None, speaks });
        };
        let is_script = is_script(exec);
        let is_name = !exec.as_os_str().as_bytes().contains(&b'/');
        let (place, script) = match (is_script, is_name) {
            (true, _) => (Place::Name("node".into()), Some(absolute(exec)?)),
            (false, true) => (Place::Name(exec.clone().into_os_string()), None),
            (false, false) => (Place::Path(absolute(exec)?), None),
        };
        let relative = (exec.is_relative() && (is_script || !is_name)).then(|| exec.clone());
        Ok(Program { place, script, args: args.unwrap_or_default(), cwd, search, relative, speaks })
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &dyn std::fmt::Display, error: &io::Error| {
            let reason = format!("exec {what}: {}{}", Cause(error), self.counts_from(error));
            Error::new(Kind::Start, reason)
        };
        let path = self.path().map_err(|error| refuse(self, &error))?;
        let fits = fs::metadata(path).and_then(|metadata| check_executable(&metadata));
        fits.map_err(|error| refuse(self, &error))?;
        let Some(script) = &self.script else { return Ok(()) };
        // Not opened before it is known what it is: that would wait for a writer of a FIFO.
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(script)?.metadata();
        let fits = open().and_then(|metadata| check_regular(&metadata));
        fits.map_err(|error| refuse(&script.display(), &error))
    }

    /// What lies there now.
    pub(super) fn path(&self) -> io::Result<PathBuf> {
        match &self.place {
            Place::Path(path) => Ok(path.clone()),
            Place::Name(name) => self.find(name),
        }
    }

    /// Where a bare name is found now.
    pub(super) fn find(&self, name: &OsStr) -> io::Result<PathBuf> {
        find_in_path(name, self.search.as_deref(), self.cwd.as_deref())
    }

    /// Whether there is something at the path.
    pub(super) fn is_there(&self) -> bool {
        self.path().is_ok_and(|path| path.exists())
    }

    /// For the end of an error: where a relative path was looked for, if it may be meant to lie somewhere else.
    pub(super) fn counts_from(&self, error: &io::Error) -> String {
        match (&self.relative, &self.cwd, error.kind()) {
            (Some(exec), Some(cwd), io::ErrorKind::NotFound) => {
                let (exec, from) = (exec.display(), env::current_dir().unwrap_or_default());
                let (from, cwd) = (from.display(), cwd.display());
                format!(" ({exec} counts from {from}, where the master was started, not from cwd {cwd})")
            }
            (_, _, _) => String::new(),
        }
    }

    /// The arguments as the settings have them.
    pub(super) fn args(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().map(OsString::as_os_str)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn speaks(&self) -> Speaks {
        self.speaks
    }

    pub(super) fn script(&self) -> Option<&Path> {
        self.script.as_deref()
    }

    pub(super) fn cwd(&self) -> Option<&Path> {
        self.cwd.as_deref()
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

fn check_folder(path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::start(format_args!("cwd {}", path.display()), error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(Error::new(Kind::Start, format!("cwd {}: not a directory", path.display())));
    }
    std::path::absolute(path).map_err(failed)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::start(format_args!("exec {}", path.display()), error))
}

pub(super) fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"))
    } else if metadata.is_file() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"))
    }
}

pub(super) fn check_executable(metadata: &Metadata) -> io::Result<()> {
    check_regular(metadata)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not executable (chmod +x?)"));
    }
    Ok(())
}

/// In the workers' own PATH, whose relative folders count from their directory.
fn find_in_path(name: &OsStr, search: Option<&OsStr>, cwd: Option<&Path>) -> io::Result<PathBuf> {
    let whose = if search.is_some() { "the PATH of `env`" } else { "PATH" };
    let search = search.map(OsStr::to_owned).or_else(|| env::var_os("PATH"));
    let search = search.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let base = cwd.map_or_else(|| env::current_dir().unwrap_or_default(), Path::to_owned);
    env::split_paths(&search)
        .map(|folder| base.join(folder).join(name))
        .find(|file| fs::metadata(file).is_ok_and(|metadata| check_executable(&metadata).is_ok()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no such program in {whose}")))
}

/// The path that this process was started as, so that a restart runs what lies there by then.
/// Where that no longer leads to this very program, the path that the kernel knows.
fn running_executable() -> Result<PathBuf> {
    let failed = |error| Error::start("the running executable", error);
    let argv0 = env::args_os().next().unwrap_or_default();
    let started_as = if argv0.as_bytes().contains(&b'/') {
        std::path::absolute(Path::new(&argv0)).map_err(failed)?
    } else {
        find_in_path(&argv0, None, None).unwrap_or_default()
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match (identity(&started_as), identity(Path::new("/proc/self/exe"))) {
        (Some(by_name), Some(running)) if by_name == running => Ok(started_as),
        _ => env::current_exe().map_err(failed),
    }
}
