//! The program of one generation: what its paths led to when the generation began is what all of its workers run.

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::elevation;
use super::folder::{Folder, Found, Links, Replacements};
use super::placeholder::{self, Values};
use super::program::{Place, Program, check_executable, check_regular};
use super::shebang::Shebang;
use crate::error::Cause;
use crate::sys::spawn::{Failure, Image, Step};

/// A `current` that is moved on while its paths are read is read again, so many times in all.
const LOOKS: usize = 3;

/// What a generation holds on to for as long as it may start workers.
#[derive(Debug)]
pub(super) struct Pinned {
    exec: Found,
    kind: ImageKind,
    clears_death_signal: bool,
    argv0: Argv0,
    script: Option<Found>,
    cwd: Option<Folder>,
    links: Links,
    /// Where the worker's relative paths count from, as written.
    base: PathBuf,
}

/// How a program is started.
#[derive(Debug)]
enum ImageKind {
    /// Machine code: from the open file, where no path leads to it any more.
    Binary,
    /// The interpreter that it names reads it, by a path.
    Script(Option<Box<Interpreter>>),
}

/// What a script is read by.
#[derive(Debug)]
struct Interpreter {
    written: Shebang,
    found: Found,
}

/// What a program is told that it is called.
#[derive(Debug)]
enum Argv0 {
    /// As the settings have it: found in a folder of PATH that is no link.
    Name(OsString),
    /// Its path, the folders resolved.
    Path,
}

/// What is executed, and how it is called.
#[derive(Debug)]
pub(super) struct Command {
    exec: Executed,
    pub(super) argv: Vec<OsString>,
}

#[derive(Debug)]
enum Executed {
    Path(PathBuf),
    Open,
}

fn failed(step: Step) -> impl FnOnce(io::Error) -> Failure {
    move |cause| Failure { step, cause }
}

impl Pinned {
    /// Reads the paths of a program, and holds on to what they lead to now.
    pub(super) fn read(program: &Program) -> Result<Self, Failure> {
        let mut pinned = Pinned::look(program)?;
        for _ in 1..LOOKS {
            if pinned.links.are_current() {
                break;
            }
            pinned = Pinned::look(program)?;
        }
        Ok(pinned)
    }

    fn look(program: &Program) -> Result<Self, Failure> {
        let path = program.path().map_err(failed(Step::Exec))?;
        let (exec, metadata) = Found::open(&path).map_err(failed(Step::Exec))?;
        check_executable(&metadata).map_err(failed(Step::Exec))?;
        let mut links = Links::default();
        let cwd = program.cwd().map(Folder::open).transpose().map_err(failed(Step::Directory))?;
        let base = program.cwd().map(Path::to_owned).or_else(|| env::current_dir().ok()).unwrap_or_default();
        let script =
            program.script().map(|script| open_script(script).map_err(failed(Step::Exec))).transpose()?;
        let kind = ImageKind::of(&exec, &metadata, &base);
        let find = |name: &OsStr| program.find(name).ok();
        let clears_death_signal = elevation::clears_death_signal(&exec, &metadata, &base, find);
        let entry = match (&kind, &script) {
            (ImageKind::Binary, None) => entry_of(program, &base),
            (ImageKind::Script(_), _) | (ImageKind::Binary, Some(_)) => None,
        };
        let files =
            [Some(&*path), program.script(), entry.as_deref(), kind.interpreter()].into_iter().flatten();
        let folders = files.filter_map(Path::parent).chain(program.cwd());
        folders.into_iter().try_for_each(|folder| links.add(folder)).map_err(failed(Step::Exec))?;
        let argv0 = match program.place() {
            Place::Name(name) if exec.path() == path => Argv0::Name(name.clone()),
            Place::Name(_) | Place::Path(_) => Argv0::Path,
        };
        Ok(Pinned { exec, kind, clears_death_signal, argv0, script, cwd, links, base })
    }

    /// Whether its processes outlive a master that is killed, but for a guard.
    pub(super) fn clears_death_signal(&self) -> bool {
        self.clears_death_signal
    }

    pub(super) fn cwd(&self) -> Option<BorrowedFd<'_>> {
        self.cwd.as_ref().map(Folder::as_fd)
    }

    /// What takes the place of the links that its paths led through.
    pub(super) fn replacements(&self) -> Replacements {
        self.links.replacements(&self.base)
    }

    /// What to execute for a worker with these values: by a path while one leads there still, since the process is then
    /// known by its name.
    pub(super) fn command(&self, program: &Program, replacements: &Replacements, values: Values) -> Command {
        let args = program.args().map(|arg| replacements.apply(placeholder::fill(arg, values)));
        let script = self.script.iter().map(|script| Cow::Owned(now_or_then(script).into_os_string()));
        let rest = script.chain(args).map(Cow::into_owned);
        let argv0 = match &self.argv0 {
            Argv0::Name(name) => name.clone(),
            Argv0::Path => self.exec.path().into_os_string(),
        };
        match (&self.kind, self.exec.now()) {
            (ImageKind::Script(Some(interpreter)), _) if interpreter.leads_on(replacements) => {
                let (path, found) = (now_or_then(&self.exec), now_or_then(&interpreter.found));
                let reader = [interpreter.found.path().into_os_string()].into_iter();
                let words = reader.chain(interpreter.written.arg.clone()).chain([path.into_os_string()]);
                Command { exec: Executed::Path(found), argv: words.chain(rest).collect() }
            }
            (ImageKind::Binary, None) => {
                Command { exec: Executed::Open, argv: [argv0].into_iter().chain(rest).collect() }
            }
            (ImageKind::Binary | ImageKind::Script(_), now) => {
                let path = now.unwrap_or_else(|| self.exec.path());
                Command { exec: Executed::Path(path), argv: [argv0].into_iter().chain(rest).collect() }
            }
        }
    }

    pub(super) fn image<'a>(&'a self, command: &'a Command) -> Image<'a> {
        match &command.exec {
            Executed::Path(path) => Image::Path(path.as_os_str()),
            Executed::Open => Image::Open(self.exec.as_fd()),
        }
    }
}

fn now_or_then(found: &Found) -> PathBuf {
    found.now().unwrap_or_else(|| found.path())
}

/// Named in its error, since the program that would read it is not to blame.
fn open_script(path: &Path) -> io::Result<Found> {
    let open = || {
        let (found, metadata) = Found::open(path)?;
        check_regular(&metadata)?;
        Ok(found)
    };
    open().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {}", path.display(), Cause(&error)))
    })
}

/// What an interpreter runs: the first argument that is the path of a file.
fn entry_of(program: &Program, base: &Path) -> Option<PathBuf> {
    let paths = program.args().map(Path::new).filter(|path| path.parent().is_some_and(|folder| folder != ""));
    paths.map(|path| base.join(path)).find(|path| path.is_file())
}

impl ImageKind {
    fn interpreter(&self) -> Option<&Path> {
        match self {
            ImageKind::Script(Some(interpreter)) => {
                Some(&*interpreter.written.interpreter).filter(|path| path.is_absolute())
            }
            ImageKind::Script(None) | ImageKind::Binary => None,
        }
    }

    /// Looks at how the file begins. One that may not be read is no script: its interpreter could not read it either.
    fn of(file: &Found, metadata: &Metadata, base: &Path) -> Self {
        // Whatever else lies there is not opened: that may do something.
        if !metadata.is_file() {
            return ImageKind::Binary;
        }
        let mut head = Vec::new();
        let read = file.reopen().and_then(|file| file.take(Shebang::LONGEST).read_to_end(&mut head));
        match read {
            Ok(_) if head.starts_with(b"#!") => {}
            Ok(_) | Err(_) => return ImageKind::Binary,
        }
        let interpreter = Shebang::parse(&head).and_then(|written| {
            // What is not there is the kernel's to say.
            let (found, _) = Found::open(&base.join(&written.interpreter)).ok()?;
            Some(Box::new(Interpreter { written, found }))
        });
        ImageKind::Script(interpreter)
    }
}

impl Interpreter {
    /// Whether the path in the script would lead the kernel to another one, or the worker to libraries of another
    /// release.
    fn leads_on(&self, replacements: &Replacements) -> bool {
        let written = self.written.interpreter.as_os_str();
        *replacements.apply(Cow::Borrowed(written)) != *written
    }
}
