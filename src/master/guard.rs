//! The guard beside the master: started where it is needed, told of workers that go, replaced when it is lost.

use std::fmt::Display;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;

use super::Master;
use super::token::Source;
use crate::error::Cause;
use crate::journal;
use crate::supervisor::{Event, Generation};
use crate::sys::guard::Guard;
use crate::sys::process::Child;

/// Whether a guard watches over the workers.
#[derive(Debug)]
pub(super) enum Watch {
    /// No program has needed one so far.
    Unneeded,
    Kept(Guard),
    /// It did not read, and was killed: its end is on the way.
    Ending(Guard),
    /// The core has been told, and says when there is another.
    Lost,
}

impl Watch {
    /// Where a new worker announces itself, and to which guard.
    pub(super) fn control(&self) -> io::Result<Option<(GuardId, OwnedFd)>> {
        match self {
            Watch::Kept(guard) => Ok(Some((GuardId(guard.pid()), guard.control().try_clone_to_owned()?))),
            Watch::Unneeded | Watch::Ending(_) | Watch::Lost => Ok(None),
        }
    }
}

/// One guard of several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuardId(Option<u32>);

impl Master {
    /// A worker has begun that has announced itself to this guard, if to any: one that came meanwhile is told of it.
    /// Where there is none, the next one is told of everybody.
    pub(super) fn see_announced(&mut self, worker: &Child, to: Option<GuardId>) {
        let Watch::Kept(guard) = &self.guard else { return };
        if to != Some(GuardId(guard.pid()))
            && let Err(error) = guard.watch(worker)
        {
            self.end_mute_guard(Cause(&error));
        }
    }

    /// Where the settings want a guard, or the program of this generation needs one, there is one from now on.
    pub(super) fn guard_if_needed(&mut self, generation: Generation) -> io::Result<()> {
        match self.guard {
            Watch::Unneeded if self.launcher.wants_guard(generation) => self.start_guard(),
            Watch::Unneeded | Watch::Kept(_) | Watch::Ending(_) | Watch::Lost => Ok(()),
        }
    }

    /// Another in the place of one that is lost.
    pub(super) fn replace_guard(&mut self) {
        if let Err(error) = self.start_guard() {
            self.outcomes.push_back(Event::GuardLost { how: format!("did not start: {}", Cause(&error)) });
        }
    }

    fn start_guard(&mut self) -> io::Result<()> {
        let guard = Guard::start(self.processes.values().map(|process| &process.child))?;
        self.watch(Source::Guard, guard.control())?;
        if let Some(pid) = guard.pid() {
            journal::debug!("the guard runs as pid {pid}");
        }
        self.guard = Watch::Kept(guard);
        Ok(())
    }

    /// The guard says nothing, so that what comes from it is its end.
    pub(super) fn look_at_guard(&mut self) {
        let (Watch::Kept(guard) | Watch::Ending(guard)) = &mut self.guard else { return };
        let Some(status) = guard.look() else { return };
        let control = guard.control().as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&control)) {
            journal::warn!("the guard: {}", Cause(&error));
        }
        drop(mem::replace(&mut self.guard, Watch::Lost));
        self.events.push_back(Event::GuardLost { how: format!("has ended ({status})") });
    }

    /// A worker is about to be reaped: its number may then be anybody's.
    pub(super) fn guard_no_more(&mut self, pid: u32) {
        if let Watch::Kept(guard) = &self.guard
            && let Err(error) = guard.forget(pid)
        {
            self.end_mute_guard(Cause(&error));
        }
    }

    /// One that does not read, since somebody has stopped it, is ended; its end brings another.
    pub(super) fn end_mute_guard(&mut self, why: impl Display) {
        self.guard = match mem::replace(&mut self.guard, Watch::Lost) {
            Watch::Kept(guard) => {
                journal::warn!("the guard does not read: {why}; ending it");
                guard.kill();
                Watch::Ending(guard)
            }
            other @ (Watch::Unneeded | Watch::Ending(_) | Watch::Lost) => other,
        };
    }
}
