//! The program of one generation: what its paths led to when the generation began is what all of its workers run.

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::dialect::{self, Dialect, Shape};
use super::elevation;
use super::folder::{Folder, Found, Links, Replacements};
use super::offload::within;
use super::placeholder::{self, Values};
use super::program::{Place, Program, check_executable, check_regular};
use super::shebang::Shebang;
use crate::config::Speaks;
use crate::error::Cause;
use crate::sys::spawn::{Failure, Image, Step};

/// A `current` that is moved on while its paths are read is read again, so many times in all.
const LOOKS: usize = 3;
/// How long a look at where things lie may take. Only a file system that does not answer takes longer.
const LOOK: Duration = Duration::from_secs(1);

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
    /// What executes an open file has the short name of that.
    open_files_have_names: bool,
    /// A look at where it lies now has not come back.
    is_blind: AtomicBool,
    dialect: Dialect,
    /// What the reader of the log may want to know about it.
    hint: Option<&'static str>,
}

/// Where what was pinned lies at one moment.
#[derive(Debug)]
pub(super) struct Location {
    /// A path that leads to the program, if one does.
    exec: Option<PathBuf>,
    /// What the program is called.
    name: PathBuf,
    script: Option<PathBuf>,
    interpreter: Option<PathBuf>,
    pub(super) replacements: Replacements,
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
        let interpreter = kind.interpreter().map(|interpreter| &*interpreter.written.interpreter);
        let interpreter = interpreter.filter(|path| path.is_absolute());
        let files = [Some(&*path), program.script(), entry.as_deref(), interpreter].into_iter().flatten();
        let folders = files.filter_map(Path::parent).chain(program.cwd());
        folders.into_iter().try_for_each(|folder| links.add(folder)).map_err(failed(Step::Exec))?;
        let argv0 = match program.place() {
            Place::Name(name) if exec.path() == path => Argv0::Name(name.clone()),
            Place::Name(_) | Place::Path(_) => Argv0::Path,
        };
        let shape = Shape {
            exec: &path,
            real: &exec.real_then(),
            shebang: kind.interpreter().map(|interpreter| &interpreter.written),
            is_script: script.is_some(),
            args: program.args().collect(),
        };
        let (dialect, hint) = match program.speaks() {
            Speaks::Auto => (Dialect::of(&shape), dialect::hint(&shape)),
            Speaks::Node => (Dialect::Node, None),
            Speaks::Proteus => (Dialect::Own, None),
        };
        let (is_blind, open_files_have_names) = (AtomicBool::new(false), kernel_is_from(6, 14));
        Ok(Pinned {
            exec,
            kind,
            clears_death_signal,
            argv0,
            script,
            cwd,
            links,
            base,
            open_files_have_names,
            is_blind,
            dialect,
            hint,
        })
    }

    /// Whether its processes outlive a master that is killed, but for a guard.
    pub(super) fn clears_death_signal(&self) -> bool {
        self.clears_death_signal
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        self.hint
    }

    pub(super) fn cwd(&self) -> Option<BorrowedFd<'_>> {
        self.cwd.as_ref().map(Folder::as_fd)
    }

    /// Every path at which something of it is looked for when a worker is started.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let read = self.kind.interpreter().map(|interpreter| &interpreter.found);
        let files = [Some(&self.exec), self.script.as_ref(), read].into_iter().flatten();
        files.flat_map(Found::paths).chain(self.links.paths()).chain([&*self.base])
    }

    /// Where all that belongs to it lies now. A file system that does not answer is not waited for: what is open can be
    /// executed all the same.
    pub(super) fn locate(self: &Arc<Self>) -> Location {
        if !self.needs_look() || self.is_blind.swap(true, Ordering::SeqCst) {
            return self.recall();
        }
        let pinned = Arc::clone(self);
        let looked = within(LOOK, move || {
            let location = pinned.look_around();
            pinned.is_blind.store(false, Ordering::SeqCst);
            location
        });
        looked.unwrap_or_else(|| self.recall())
    }

    /// Where all that belongs to it lies now, on file systems that answer.
    pub(super) fn locate_at_once(&self) -> Location {
        if self.needs_look() { self.look_around() } else { self.recall() }
    }

    /// Whether only a look tells by which path to go: a link may lead elsewhere by now, and a process that executes an
    /// open file may lose its short name.
    fn needs_look(&self) -> bool {
        let interpreter = self.kind.interpreter().map(|interpreter| &interpreter.found);
        let mut files = [Some(&self.exec), self.script.as_ref(), interpreter].into_iter().flatten();
        let loses_name = matches!(self.kind, ImageKind::Binary) && !self.open_files_have_names;
        loses_name || files.any(Found::is_behind_a_link)
    }

    fn look_around(&self) -> Location {
        let interpreter = self.kind.interpreter().map(|interpreter| &interpreter.found);
        let (script, interpreter) = (self.script.as_ref().map(now_or_then), interpreter.map(now_or_then));
        Location { exec: self.exec.now(), script, interpreter, ..self.recall() }
    }

    /// Without a look at any file system.
    fn recall(&self) -> Location {
        let interpreter = self.kind.interpreter().map(|interpreter| &interpreter.found);
        Location {
            exec: None,
            name: self.exec.path(),
            script: self.script.as_ref().map(Found::path),
            interpreter: interpreter.map(Found::path),
            replacements: self.links.replacements(&self.base),
        }
    }

    /// What to execute for a worker with these values: machine code from the open file, unless a path was found that
    /// leads there and by which the process is known by its name.
    pub(super) fn command(&self, program: &Program, location: &Location, values: Values) -> Command {
        let Location { exec, name, script, interpreter: reader, replacements } = location;
        let path = || exec.as_ref().unwrap_or(name).clone();
        let (exec, first) = match &self.kind {
            ImageKind::Binary if exec.is_none() => (Executed::Open, vec![self.argv0(name)]),
            ImageKind::Script(Some(interpreter)) if interpreter.leads_on(replacements) => {
                let words =
                    [Some(interpreter.found.path().into_os_string()), interpreter.written.arg.clone()];
                let words = words.into_iter().flatten().chain([path().into_os_string()]);
                (Executed::Path(reader.clone().unwrap_or_else(path)), words.collect())
            }
            ImageKind::Binary | ImageKind::Script(_) => (Executed::Path(path()), vec![self.argv0(name)]),
        };
        let script = script.iter().map(|script| script.clone().into_os_string());
        let args = program.args().map(|arg| replacements.apply(placeholder::fill(arg, values)).into_owned());
        Command { exec, argv: first.into_iter().chain(script).chain(args).collect() }
    }

    fn argv0(&self, path: &Path) -> OsString {
        match &self.argv0 {
            Argv0::Name(name) => name.clone(),
            Argv0::Path => path.as_os_str().to_owned(),
        }
    }

    pub(super) fn image<'a>(&'a self, command: &'a Command) -> Image<'a> {
        match &command.exec {
            Executed::Path(path) => Image::Path(path.as_os_str()),
            Executed::Open => Image::Open(self.exec.as_fd()),
        }
    }
}

/// Whether the kernel is of this version or newer.
fn kernel_is_from(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
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
    fn interpreter(&self) -> Option<&Interpreter> {
        match self {
            ImageKind::Script(interpreter) => interpreter.as_deref(),
            ImageKind::Binary => None,
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
