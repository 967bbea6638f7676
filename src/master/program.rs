//! What the workers run: as the settings name it, and as a generation of workers has it.
//!
//! A generation keeps its program and its working directory open for as long as it may start workers: only a
//! restart looks at the paths again.

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::placeholder::{self, Values};
use crate::config::Config;
use crate::error::{Cause, Error, Kind, Result};
use crate::sys::spawn::{Failure, Image, Step};

/// Files that are not programs by themselves: `node` runs them.
pub(super) const SCRIPTS: [&str; 3] = ["js", "mjs", "cjs"];

/// The program and the working directory as the settings name them.
#[derive(Debug)]
pub(super) struct Program {
    place: Place,
    /// A file of code that the program at `place` runs, as its first argument.
    script: Option<PathBuf>,
    args: Vec<OsString>,
    cwd: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A file, by its absolute path.
    Path(PathBuf),
    /// Looked up in PATH.
    Name(OsString),
}

/// The program of one generation.
#[derive(Debug)]
pub(super) struct Pinned {
    /// Where the program lay; its device and inode tell whether it still does.
    found: Found,
    kind: ImageKind,
    program: File,
    script: Option<Found>,
    cwd: Option<File>,
}

/// How a program can be started once its path leads elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImageKind {
    /// Machine code: from the open file.
    Binary,
    /// It names an interpreter, which reads it by its path.
    Script,
}

/// A file as a path led to it.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    /// The same file, without the symlinks that were followed: it outlives a `current` that moves on.
    real: PathBuf,
    identity: (u64, u64),
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
        let Some(exec) = &config.exec else {
            // The master's own are meant as they are.
            let own = || env::args_os().skip(1).map(|arg| placeholder::literal(&arg)).collect();
            let args = args.unwrap_or_else(own);
            return Ok(Program { place: Place::Path(running_executable()?), script: None, args, cwd });
        };
        let args = args.unwrap_or_default();
        if exec.extension().is_some_and(|extension| SCRIPTS.iter().any(|script| *script == extension)) {
            return Ok(Program {
                place: Place::Name("node".into()),
                script: Some(absolute(exec)?),
                args,
                cwd,
            });
        }
        let place = if exec.as_os_str().as_bytes().contains(&b'/') {
            Place::Path(absolute(exec)?)
        } else {
            Place::Name(exec.clone().into_os_string())
        };
        Ok(Program { place, script: None, args, cwd })
    }

    fn check(&self) -> Result<()> {
        let failed = |error| Error::start(format_args!("exec {self}"), error);
        let path = self.path().map_err(failed)?;
        fs::metadata(path).and_then(|metadata| check_executable(&metadata)).map_err(failed)?;
        let Some(script) = &self.script else { return Ok(()) };
        check_readable(script).map_err(|error| Error::start(format_args!("exec {}", script.display()), error))
    }

    /// What lies there now.
    fn path(&self) -> io::Result<PathBuf> {
        match &self.place {
            Place::Path(path) => Ok(path.clone()),
            Place::Name(name) => find_in_path(name),
        }
    }

    /// Whether there is something at the path.
    pub(super) fn is_there(&self) -> bool {
        self.path().is_ok_and(|path| path.exists())
    }

    /// Reads the paths, and holds on to what they lead to now.
    pub(super) fn pin(&self) -> Result<Pinned, Failure> {
        let failed = |step| move |cause| Failure { step, cause };
        let path = self.path().map_err(failed(Step::Exec))?;
        let program = open_path(&path, 0).map_err(failed(Step::Exec))?;
        let metadata = program.metadata().map_err(failed(Step::Exec))?;
        check_executable(&metadata).map_err(failed(Step::Exec))?;
        let kind = ImageKind::of(&path, &metadata);
        let cwd = self.cwd.as_deref().map(|path| open_path(path, libc::O_DIRECTORY)).transpose();
        let cwd = cwd.map_err(failed(Step::Directory))?;
        let script = self.script.as_deref().map(|script| {
            // Named, since the program that it would be read by is not to blame.
            let named = |error| {
                io::Error::new(io::ErrorKind::NotFound, format!("{}: {}", script.display(), Cause(&error)))
            };
            let metadata = fs::metadata(script).map_err(named).map_err(failed(Step::Exec))?;
            Ok(Found::new(script.to_owned(), &metadata))
        });
        let script = script.transpose()?;
        Ok(Pinned { found: Found::new(path, &metadata), kind, program, script, cwd })
    }

    /// From `argv[0]` on.
    pub(super) fn argv<'a>(&'a self, pinned: &'a Pinned, values: Values) -> Vec<Cow<'a, OsStr>> {
        let argv0 = match &self.place {
            Place::Path(path) => path.as_os_str(),
            Place::Name(name) => name,
        };
        let script = pinned.script.as_ref().map(|script| script.now().unwrap_or(&script.path).as_os_str());
        let program = std::iter::once(argv0).chain(script).map(Cow::Borrowed);
        program.chain(self.args.iter().map(|arg| placeholder::fill(arg, values))).collect()
    }

    /// The arguments as the settings have them.
    pub(super) fn args(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().map(OsString::as_os_str)
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

impl Pinned {
    /// What is to be executed: by a path while one leads to it still, since the process is then known by its name.
    pub(super) fn image(&self) -> Image<'_> {
        match (self.found.now(), self.kind) {
            (Some(path), _) => Image::Path(path.as_os_str()),
            (None, ImageKind::Binary) => Image::Open(self.program.as_fd()),
            (None, ImageKind::Script) => Image::Path(self.found.path.as_os_str()),
        }
    }

    pub(super) fn cwd(&self) -> Option<BorrowedFd<'_>> {
        self.cwd.as_ref().map(File::as_fd)
    }
}

impl ImageKind {
    /// Looks at how the file begins. One that may not be read is no script: its interpreter could not read it either.
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let mut head = [0; 2];
        let mut read = || File::open(path)?.read_exact(&mut head);
        // Whatever else lies there is not opened: that may block, or do something.
        match metadata.is_file().then(&mut read) {
            Some(Ok(())) if head == *b"#!" => ImageKind::Script,
            Some(_) | None => ImageKind::Binary,
        }
    }
}

impl Found {
    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        Found { path, real, identity: identity(metadata) }
    }

    /// A path that leads there now, if one does.
    fn now(&self) -> Option<&Path> {
        let leads =
            |path: &&Path| fs::metadata(path).is_ok_and(|metadata| identity(&metadata) == self.identity);
        [self.path.as_path(), self.real.as_path()].into_iter().find(leads)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Holds on to a file without the right to read it.
fn open_path(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | flags).open(path)
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

fn check_readable(path: &Path) -> io::Result<()> {
    refuse_directory(&File::open(path)?.metadata()?)
}

fn refuse_directory(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"))
    } else {
        Ok(())
    }
}

fn check_executable(metadata: &Metadata) -> io::Result<()> {
    refuse_directory(metadata)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not executable (chmod +x?)"));
    }
    Ok(())
}

fn find_in_path(name: &OsStr) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|metadata| check_executable(&metadata).is_ok()))
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
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| identity(&metadata));
    match (identity(&started_as), identity(Path::new("/proc/self/exe"))) {
        (Some(by_name), Some(running)) if by_name == running => Ok(started_as),
        _ => env::current_exe().map_err(failed),
    }
}
