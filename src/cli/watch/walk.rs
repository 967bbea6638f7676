//! One look at a watched path: along its links, and through its folders.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::folders::{Folders, is_ignored, is_ignored_folder};
use super::snapshot::{Seen, Snapshot, Stamp};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
/// Where a link may lead and there is nothing to be watched.
const NO_FILES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What was found of a path, and which folders were walked through for it.
pub(super) struct Walk<'a> {
    folders: &'a mut Folders,
    found: Snapshot,
    walked: HashSet<PathBuf>,
}

/// What is under an absolute path; nothing if there is no such thing at the moment.
pub(super) fn look_at(root: &Path, folders: &mut Folders) -> Option<Snapshot> {
    let mut walk = Walk { folders, found: Snapshot::new(), walked: HashSet::new() };
    let path = walk.resolve(Path::new("/"), root)?;
    let found = fs::metadata(&path).ok()?;
    if found.is_dir() {
        walk.through(&path);
    } else {
        walk.found.insert(path, Seen::File(Stamp::of(&found)));
    }
    Some(walk.found)
}

impl Walk<'_> {
    /// The true path of what `path`, seen from a folder, leads to. Each folder on the way and each link is noted: a
    /// change of any of them may lead elsewhere.
    fn resolve(&mut self, folder: &Path, path: &Path) -> Option<PathBuf> {
        let (mut here, mut rest, mut links) = (folder.to_owned(), parts(path), 0);
        while let Some(part) = rest.pop() {
            match Path::new(&part).components().next()? {
                Component::RootDir | Component::Prefix(_) => here = PathBuf::from("/"),
                Component::CurDir => {}
                Component::ParentDir => drop(here.pop()),
                Component::Normal(name) => {
                    // Before it is looked at: what changes after that is noticed.
                    self.folders.visit(&here);
                    let entry = here.join(name);
                    self.folders.step(&entry);
                    if fs::symlink_metadata(&entry).ok()?.is_symlink() {
                        links += 1;
                        rest.extend(parts(&fs::read_link(&entry).ok().filter(|_| links <= MOST_LINKS)?));
                    } else {
                        here = entry;
                    }
                }
            }
        }
        Some(here)
    }

    /// By its true path.
    fn through(&mut self, folder: &Path) {
        if !self.walked.insert(folder.to_owned()) {
            return;
        }
        self.folders.visit(folder);
        self.folders.walk(folder);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if is_ignored(&name) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.through(&path),
                Ok(kind) if kind.is_symlink() => self.follow(folder, &path),
                Ok(kind) if kind.is_file() => self.note(path),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// What a link in a folder leads to, but for a folder that it lies in itself.
    fn follow(&mut self, folder: &Path, link: &Path) {
        let Some(target) = link.file_name().and_then(|name| self.resolve(folder, Path::new(name))) else {
            return;
        };
        let Ok(found) = fs::metadata(&target) else { return };
        if found.is_file() {
            self.note(target.clone());
        } else if found.is_dir() && !folder.starts_with(&target) {
            if is_worth_it(&target) {
                self.through(&target);
            }
        } else {
            return;
        }
        self.found.insert(link.to_owned(), Seen::Link(target));
    }

    fn note(&mut self, file: PathBuf) {
        if let Ok(found) = fs::symlink_metadata(&file) {
            self.found.insert(file, Seen::File(Stamp::of(&found)));
        }
    }
}

/// A link may have another name than the folder that it leads to.
fn is_worth_it(folder: &Path) -> bool {
    let is_ignored = folder.file_name().is_some_and(|name| is_ignored_folder(&name.to_string_lossy()));
    !is_ignored && !NO_FILES.iter().any(|files| folder.starts_with(files))
}

/// The last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}
