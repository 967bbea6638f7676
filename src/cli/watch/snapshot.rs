//! How watched files look at a moment, and what has changed between two.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// By true paths, whichever links lead there.
pub(super) type Snapshot = BTreeMap<PathBuf, Seen>;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    File(Stamp),
    /// A link, and the true path that it leads to.
    Link(PathBuf),
}

/// What a change of a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    mode: u32,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(found: &Metadata) -> Self {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            mode: found.mode(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// The first path that is new, gone or different.
pub(super) fn first_difference<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Option<&'a Path> {
    let changed = after.iter().find(|(path, seen)| before.get(*path) != Some(seen));
    let gone = || before.iter().find(|(path, _)| !after.contains_key(*path));
    changed.or_else(gone).map(|(path, _)| path.as_path())
}
