//! `proteus run --watch`: a restart when watched files have changed.
//!
//! The kernel's notices only wake it: what counts is whether the files differ from the last look. So a file that
//! was read, or made and removed again, restarts nothing, and no lost notice hides a change for long.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use proteus_cluster::Handle;

use super::{Refusal, cause};

/// Files are looked at once nothing has happened for so long: who writes one often writes the next.
const QUIET: Duration = Duration::from_millis(100);
/// But after so long in any case.
const LONGEST: Duration = Duration::from_secs(2);

/// Folders that hold no code of the program's own.
const STRANGE_FOLDERS: [&str; 3] = ["target", "node_modules", "__pycache__"];
/// Ends of names that editors and running programs give their own files.
const STRANGE_ENDS: [&str; 5] = ["~", ".swp", ".tmp", ".log", ".pid"];

/// Watched paths, and how they looked last.
pub(super) struct Watch {
    roots: Vec<PathBuf>,
    watcher: RecommendedWatcher,
    /// Folders that the kernel reports on, with their inodes: one that was replaced is another one.
    folders: HashSet<(PathBuf, u64)>,
    notices: Receiver<()>,
    seen: Snapshot,
}

type Snapshot = BTreeMap<PathBuf, Stamp>;

/// What a change of a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    mode: u32,
    modified: (i64, i64),
}

impl Watch {
    /// Looks at everything for the first time. Paths must exist.
    pub(super) fn begin(paths: &[PathBuf]) -> Result<Self, Refusal> {
        let mut roots = Vec::new();
        for path in paths {
            let refused = |error| format!("--watch {}: {}", path.display(), cause(&error));
            fs::metadata(path).map_err(refused)?;
            roots.push(std::path::absolute(path).map_err(refused)?);
        }
        // One notice is as good as many.
        let (sender, notices) = sync_channel(1);
        let concerned = roots.clone();
        let watcher = notify::recommended_watcher(move |notice: notify::Result<Event>| {
            if notice.map_or(true, |event| concerns(&event, &concerned)) {
                let _ = sender.try_send(()); // full: there is one already
            }
        });
        let watcher = watcher.map_err(|error| format!("--watch: {error}"))?;
        let mut watch = Watch { roots, watcher, folders: HashSet::new(), notices, seen: Snapshot::new() };
        watch.seen = watch.look();
        Ok(watch)
    }

    /// Gives the orders from a thread of its own, until the cluster has ended.
    pub(super) fn follow(mut self, handle: Handle) -> std::io::Result<()> {
        let thread = thread::Builder::new().name("proteus-watch".into());
        thread.spawn(move || while self.next_change() && handle.restart().is_ok() {}).map(drop)
    }

    /// Waits until a file has changed, and says so.
    fn next_change(&mut self) -> bool {
        while self.notices.recv().is_ok() {
            let until = Instant::now() + LONGEST;
            while Instant::now() < until && self.notices.recv_timeout(QUIET).is_ok() {}
            let seen = self.look();
            let before = std::mem::replace(&mut self.seen, seen);
            if let Some(path) = first_difference(&before, &self.seen) {
                log::info!("{} has changed", path.display());
                return true;
            }
        }
        false
    }

    fn look(&mut self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        let mut folders = HashSet::new();
        for root in self.roots.clone() {
            // A file, or a folder, that is replaced: only the folder above it knows.
            if let Some(above) = root.parent() {
                self.visit(above, &mut folders);
            }
            match fs::metadata(&root) {
                Ok(found) if found.is_dir() => self.look_into(&root, &mut snapshot, &mut folders),
                Ok(found) => drop(snapshot.insert(root, Stamp::of(&found))),
                Err(_) => {}
            }
        }
        self.folders = folders;
        snapshot
    }

    fn look_into(&mut self, folder: &Path, snapshot: &mut Snapshot, folders: &mut HashSet<(PathBuf, u64)>) {
        // Before it is read: what is made after that is noticed.
        self.visit(folder, folders);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if is_strange(&name.to_string_lossy()) {
                continue;
            }
            // Links are followed to files, and not to folders, which could lead in circles.
            match (entry.file_type(), fs::metadata(&path)) {
                (Ok(kind), _) if kind.is_dir() => self.look_into(&path, snapshot, folders),
                (Ok(_), Ok(found)) if found.is_file() => drop(snapshot.insert(path, Stamp::of(&found))),
                _ => {}
            }
        }
    }

    /// Has the kernel report on a folder.
    fn visit(&mut self, folder: &Path, folders: &mut HashSet<(PathBuf, u64)>) {
        let Ok(found) = fs::metadata(folder) else { return };
        let known = (folder.to_owned(), found.ino());
        if !self.folders.contains(&known)
            && !folders.contains(&known)
            && let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive)
        {
            log::warn!("--watch: {}: {error}; changes there go unnoticed", folder.display());
        }
        folders.insert(known);
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Stamp {
            inode: found.ino(),
            length: found.len(),
            mode: found.mode(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// Whether it may tell of a change: not of a look, and of something below one of the roots.
fn concerns(event: &Event, roots: &[PathBuf]) -> bool {
    let below = |path: &PathBuf| {
        roots
            .iter()
            .filter_map(|root| path.strip_prefix(root).ok())
            .any(|rest| !rest.components().any(|part| is_strange(&part.as_os_str().to_string_lossy())))
    };
    !matches!(event.kind, EventKind::Access(_)) && (event.paths.is_empty() || event.paths.iter().any(below))
}

/// Not the program's own: hidden, built, installed, or in passing.
fn is_strange(name: &str) -> bool {
    name.starts_with('.')
        || STRANGE_FOLDERS.contains(&name)
        || STRANGE_ENDS.iter().any(|end| name.ends_with(end))
}

/// The first file that is new, gone or different.
fn first_difference<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Option<&'a Path> {
    let changed = after.iter().find(|(path, stamp)| before.get(*path) != Some(stamp));
    let gone = before.iter().find(|(path, _)| !after.contains_key(*path));
    changed.or(gone).map(|(path, _)| path.as_path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("proteus-watch-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("src/app.py"), "1").unwrap();
        folder
    }

    #[test]
    fn only_differences_count() {
        let folder = folder("differences");
        let mut watch = Watch::begin(std::slice::from_ref(&folder)).unwrap();
        // What is done, and the file that it changes.
        let app = || folder.join("src/app.py");
        let steps: [(&dyn Fn(), Option<&str>); 12] = [
            (&|| {}, None),
            (&|| drop(fs::read(app()).unwrap()), None),
            (&|| fs::write(app(), "22").unwrap(), Some("src/app.py")),
            (&|| fs::set_permissions(app(), fs::Permissions::from_mode(0o700)).unwrap(), Some("src/app.py")),
            (&|| fs::write(folder.join("src/new.py"), "").unwrap(), Some("src/new.py")),
            (&|| fs::rename(folder.join("src/new.py"), app()).unwrap(), Some("src/app.py")),
            (&|| fs::create_dir(folder.join("src/empty")).unwrap(), None),
            (&|| fs::write(folder.join("src/empty/deep.py"), "").unwrap(), Some("src/empty/deep.py")),
            (&|| fs::remove_file(folder.join("src/empty/deep.py")).unwrap(), Some("src/empty/deep.py")),
            (&|| symlink(".", folder.join("src/circle")).unwrap(), None),
            (&|| fs::write(folder.join("src/.app.py.swx"), "").unwrap(), None),
            (&|| drop((fs::create_dir(folder.join("target")), fs::write(folder.join("target/x"), ""))), None),
        ];
        for (number, (act, changes)) in steps.into_iter().enumerate() {
            act();
            let after = watch.look();
            let found = first_difference(&watch.seen, &after)
                .map(|path| path.strip_prefix(&folder).unwrap().to_owned());
            assert_eq!(found.as_deref(), changes.map(Path::new), "step {number}");
            watch.seen = after;
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_that_is_not_there_is_refused() {
        let refusal = Watch::begin(&["/no/such/path".into()]).err().unwrap();
        assert!(refusal.starts_with("--watch /no/such/path: no such file"), "{refusal}");
    }

    #[test]
    fn a_file_named_itself_is_watched_whatever_its_name() {
        let folder = folder("file");
        let file = folder.join("target.log");
        fs::write(&file, "").unwrap();
        let mut watch = Watch::begin(std::slice::from_ref(&file)).unwrap();
        fs::write(folder.join("beside.py"), "").unwrap();
        assert_eq!(first_difference(&watch.seen.clone(), &watch.look()), None);
        fs::write(folder.join("new"), "x").unwrap();
        fs::rename(folder.join("new"), &file).unwrap();
        assert_eq!(first_difference(&watch.seen.clone(), &watch.look()), Some(file.as_path()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
