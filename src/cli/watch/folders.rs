//! The folders in which the kernel tells of changes, and which of its notices matter.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::mem;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::cause;

/// Folders that hold no code of the program's own.
const IGNORED_FOLDERS: [&str; 3] = ["target", "node_modules", "__pycache__"];
/// Ends of names that editors and running programs give their own files.
const IGNORED_ENDS: [&str; 5] = ["~", ".swp", ".tmp", ".log", ".pid"];

/// All by true paths, so that a folder has one name whichever links lead there.
pub(super) struct Folders {
    watcher: RecommendedWatcher,
    /// Those that the last look came through.
    visited: HashSet<PathBuf>,
    /// Of these, those whose entries all count, save the ignored ones.
    walked: HashSet<PathBuf>,
    /// Single entries that lead to what is watched: a link, a file, or a folder on the way.
    steps: HashSet<PathBuf>,
    /// Those that the kernel does not tell of, and why.
    refused: BTreeMap<PathBuf, String>,
    /// What the last look left behind, until the next one has ended.
    before: HashSet<PathBuf>,
}

impl Folders {
    pub(super) fn new(watcher: RecommendedWatcher) -> Self {
        Folders {
            watcher,
            visited: HashSet::new(),
            walked: HashSet::new(),
            steps: HashSet::new(),
            refused: BTreeMap::new(),
            before: HashSet::new(),
        }
    }

    pub(super) fn begin_look(&mut self) {
        self.before = mem::take(&mut self.visited);
        self.walked.clear();
        self.steps.clear();
        self.refused.clear();
    }

    /// Has the kernel tell of a folder, before it is looked into: what comes after that is noticed.
    ///
    /// It is asked anew with each look, which costs little: a folder that was moved away, or made anew, is one
    /// that it has forgotten or that it takes for the old one.
    pub(super) fn visit(&mut self, folder: &Path) {
        if !self.visited.insert(folder.to_owned()) {
            return;
        }
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            // Gone since; whoever took it away has left a notice.
            Err(error) if is_gone(&error.kind) => {}
            Err(error) => drop(self.refused.insert(folder.to_owned(), why(error.kind))),
        }
    }

    /// Every entry of a folder counts.
    pub(super) fn walk(&mut self, folder: &Path) {
        self.walked.insert(folder.to_owned());
    }

    /// This entry of a folder counts.
    pub(super) fn step(&mut self, entry: &Path) {
        self.steps.insert(entry.to_owned());
    }

    /// Folders that no longer matter are let go of.
    pub(super) fn end_look(&mut self) {
        for folder in mem::take(&mut self.before).difference(&self.visited) {
            // One that was removed is forgotten already.
            drop(self.watcher.unwatch(folder));
        }
    }

    /// Whether a notice about this path may tell of a change.
    pub(super) fn concern(&self, path: &Path) -> bool {
        let is_entry = || path.parent().is_some_and(|folder| self.walked.contains(folder));
        self.steps.contains(path) || is_entry() && !path.file_name().is_some_and(is_ignored)
    }

    pub(super) fn refused(&self) -> &BTreeMap<PathBuf, String> {
        &self.refused
    }
}

/// Not the program's own: hidden, built, installed, or in passing.
pub(super) fn is_ignored(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || is_ignored_folder(&name) || IGNORED_ENDS.iter().any(|end| name.ends_with(end))
}

pub(super) fn is_ignored_folder(name: &str) -> bool {
    IGNORED_FOLDERS.contains(&name)
}

fn is_gone(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn why(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::MaxFilesWatch => {
            "the system's limit of watches, fs.inotify.max_user_watches, is reached".into()
        }
        ErrorKind::Io(error) => cause(&error),
        other => format!("{other:?}").to_lowercase(),
    }
}
