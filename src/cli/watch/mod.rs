//! `proteus run --watch`: a restart when watched files have changed.
//!
//! The kernel's notices only wake it: what counts is whether the files differ from the last look. So a file that
//! was read, or made and removed again, restarts nothing, and no lost notice hides a change for long. Where the
//! kernel does not tell of changes, it looks by itself now and then.

mod folders;
mod snapshot;
#[cfg(test)]
mod tests;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use notify::{Event, EventKind};
use proteus_cluster::Handle;

use super::{Refusal, cause};
use folders::Folders;
use snapshot::{Snapshot, first_difference};

/// Files are looked at once nothing has happened for so long: who writes one often writes the next.
const QUIET: Duration = Duration::from_millis(100);
/// But after so long in any case.
const LONGEST: Duration = Duration::from_secs(2);
/// How often files are looked at where the kernel does not tell of changes.
const UNASKED: Duration = Duration::from_secs(2);
/// But only so much of the time, as one part in so many.
const REST: u32 = 20;
/// Notices that may wait; that there were more is all that must be known of the rest.
const WAITING: usize = 256;

/// Watched paths, and how they looked last.
pub(super) struct Watch {
    roots: Vec<Root>,
    folders: Folders,
    notices: Notices,
    /// What the last look took.
    took: Duration,
    /// How many folders the kernel does not tell of, as last said.
    refused: usize,
}

struct Root {
    path: PathBuf,
    seen: Snapshot,
}

impl Watch {
    /// Looks at everything for the first time. Paths must exist.
    pub(super) fn begin(paths: &[PathBuf]) -> Result<Self, Refusal> {
        let mut roots = Vec::new();
        for path in paths {
            let refused = |error| format!("--watch {}: {}", path.display(), cause(&error));
            fs::metadata(path).map_err(refused)?;
            let path = std::path::absolute(path).map_err(refused)?;
            roots.push(Root { path, seen: Snapshot::new() });
        }
        let (handler, notices) = Notices::new();
        let watcher = notify::recommended_watcher(handler).map_err(|error| format!("--watch: {error}"))?;
        let folders = Folders::new(watcher);
        let mut watch = Watch { roots, folders, notices, took: Duration::ZERO, refused: 0 };
        watch.look();
        Ok(watch)
    }

    /// Gives the orders from a thread of its own, until the cluster has ended.
    pub(super) fn follow(mut self, handle: Handle) -> io::Result<()> {
        let thread = thread::Builder::new().name("proteus-watch".into());
        let give_orders = move || {
            while let Some(path) = self.next_change() {
                log::info!("{} has changed", path.display());
                if handle.restart().is_err() {
                    return;
                }
            }
        };
        thread.spawn(give_orders).map(drop)
    }

    /// Waits until a file has changed, and names the first that has.
    fn next_change(&mut self) -> Option<PathBuf> {
        loop {
            let unasked = (self.refused > 0).then(|| UNASKED.max(self.took * REST));
            let settled = match self.notices.wait(&self.folders, unasked) {
                Ok(()) => self.wait_for_quiet(),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => {
                    log::error!(
                        "--watch: the kernel's notices have ended, and changes go unnoticed from now on"
                    );
                    return None;
                }
            };
            let Some(changed) = self.look() else { continue };
            if !settled {
                self.look_until_quiet();
            }
            return Some(changed);
        }
    }

    fn wait_for_quiet(&self) -> bool {
        let until = Instant::now() + LONGEST;
        while Instant::now() < until && self.notices.wait(&self.folders, Some(QUIET)).is_ok() {}
        self.refused == 0
    }

    /// Without notices, quiet is known by looking.
    fn look_until_quiet(&mut self) {
        let until = Instant::now() + LONGEST;
        loop {
            thread::sleep(QUIET);
            if self.look().is_none() || Instant::now() >= until {
                return;
            }
        }
    }

    /// Looks at everything, and names the first path that differs from the last look. A path that is not there is
    /// waited for: whoever took it away is about to put it back.
    fn look(&mut self) -> Option<PathBuf> {
        let begun = Instant::now();
        self.folders.begin_look();
        let mut changed = None;
        for root in &mut self.roots {
            let Some(seen) = walk::look_at(&root.path, &mut self.folders) else { continue };
            changed = changed.or_else(|| first_difference(&root.seen, &seen).map(Path::to_owned));
            root.seen = seen;
        }
        self.folders.end_look();
        self.took = begun.elapsed();
        self.tell_refused();
        changed
    }

    fn tell_refused(&mut self) {
        let refused = self.folders.refused();
        if let Some((folder, why)) = refused.first_key_value()
            && refused.len() > self.refused
        {
            log::warn!(
                "--watch: the system does not tell of changes in {} folders, such as {}: {why}; \
                 they are looked at every {} s or so",
                refused.len(),
                folder.display(),
                UNASKED.max(self.took * REST).as_secs()
            );
        }
        self.refused = refused.len();
    }
}

/// What the kernel tells, as the paths that it is about; without any, something may have been missed.
struct Notices {
    paths: Receiver<Vec<PathBuf>>,
    missed: Arc<AtomicBool>,
}

impl Notices {
    /// Where they are put, by the thread that hears the kernel, and where they are taken.
    fn new() -> (impl Fn(notify::Result<Event>) + Send + 'static, Self) {
        let (sender, paths) = sync_channel(WAITING);
        let missed = Arc::new(AtomicBool::new(false));
        let notices = Notices { paths, missed: Arc::clone(&missed) };
        let handler = move |notice: notify::Result<Event>| {
            let paths = match notice {
                // Somebody has looked at it.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) => event.paths,
                Err(_) => Vec::new(),
            };
            if sender.try_send(paths).is_err() {
                missed.store(true, SeqCst);
                // In case that all of them were taken meanwhile; full again, one of them is still to be taken.
                drop(sender.try_send(Vec::new()));
            }
        };
        (handler, notices)
    }

    /// Waits for one that matters, for so long if at all bounded.
    fn wait(&self, folders: &Folders, limit: Option<Duration>) -> Result<(), RecvTimeoutError> {
        let until = limit.map(|limit| Instant::now() + limit);
        loop {
            let paths = match until {
                None => self.paths.recv().map_err(|_| RecvTimeoutError::Disconnected)?,
                Some(until) => self.paths.recv_timeout(until.saturating_duration_since(Instant::now()))?,
            };
            let matters = paths.is_empty() || paths.iter().any(|path| folders.concern(path));
            if self.missed.swap(false, SeqCst) || matters {
                return Ok(());
            }
        }
    }
}
