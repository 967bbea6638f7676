//! Socket files under watch: a name that somebody removes is linked back, with a word in the log.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use mio::Waker;

use super::Master;
use super::offload::Offload;
use super::socketfile::{Found, Place};
use super::token::Source;
use crate::error::Cause;
use crate::journal;
use crate::supervisor::{LookUse, Looks};
use crate::sys::inotify::{Inotify, News, WatchId};

/// What the loop hears of socket files, and the looks that it has made, each on a thread: the file system may not
/// answer.
#[derive(Debug)]
pub(super) struct SocketWatch {
    news: Arc<Inotify>,
    pub(super) looks: Looks<WatchId>,
    offload: Offload<(WatchId, Arc<Place>, Found)>,
}

impl SocketWatch {
    pub(super) fn new(news: Arc<Inotify>, waker: Arc<Waker>) -> Self {
        SocketWatch { news, looks: Looks::new(), offload: Offload::new(waker) }
    }

    pub(super) fn news(&self) -> &Arc<Inotify> {
        &self.news
    }
}

/// `None` where the system has no more of it: the files are then as safe as those of others.
pub(super) fn news() -> Option<Arc<Inotify>> {
    let opened = Inotify::new().inspect_err(|error| {
        journal::warn!(
            "inotify: {}; socket files that somebody removes will not be linked back",
            Cause(error)
        );
    });
    opened.ok().map(Arc::new)
}

impl Master {
    pub(super) fn watch_sockets(&self) -> io::Result<()> {
        self.sockets.as_ref().map_or(Ok(()), |watch| self.watch(Source::Files, watch.news.as_fd()))
    }

    pub(super) fn hear_of_files(&mut self) {
        let now = self.now();
        let Some(watch) = &mut self.sockets else { return };
        let heard = watch.news.read();
        if !heard.is_empty() {
            // There may be more, of which nobody tells again; whoever floods us waits for the next turn.
            self.unfinished.push(Source::Files);
        }
        for news in heard {
            match news {
                News::Of(file) => watch.looks.note(file, now),
                News::Lost => self.listeners.watched().for_each(|(file, _)| watch.looks.note(file, now)),
            }
        }
    }

    /// Looks at the files that are due, and says what came of the looks before.
    pub(super) fn look_after_files(&mut self) {
        let now = self.now();
        let Some(watch) = &mut self.sockets else { return };
        while let Some((file, place, found)) = watch.offload.take() {
            let used = report(&place, &found);
            watch.looks.finish(file, now, used);
        }
        while let Some(file) = watch.looks.start(now) {
            let place =
                self.listeners.watched().find(|(of, _)| *of == file).map(|(_, place)| Arc::clone(place));
            // The last news of a file are that it is gone.
            let Some(place) = place else {
                watch.looks.forget(file);
                continue;
            };
            let started = watch.offload.run(move || {
                let found = place.look();
                (file, place, found)
            });
            if let Err(error) = started {
                journal::warn!("a look at the files of sockets: {}", Cause(&error));
                watch.looks.finish(file, now, LookUse::Nothing);
            }
        }
    }
}

fn report(place: &Place, found: &Found) -> LookUse {
    let path = place.path().display();
    match found {
        Found::AsItWas => return LookUse::Nothing,
        Found::LinkedBack => {
            journal::warn!("{path}: somebody removed the file of this socket; it was linked back");
        }
        Found::Replaced(what) => {
            journal::warn!(
                "{path}: no longer leads to the cluster's socket, and is left as it is: {}",
                Cause(what)
            );
        }
        Found::Lost => {
            journal::error!(
                "{path}: somebody removed the file of this socket, and its spare name: nobody can connect there until the cluster is started anew"
            );
        }
        Found::Failed(error) => {
            journal::warn!(
                "{path}: somebody removed the file of this socket, and it cannot be linked back: {}",
                Cause(error)
            );
        }
    }
    LookUse::Mended
}
