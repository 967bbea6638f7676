//! A worker's process: what it says, and its end.

use mio::Interest;
use mio::unix::SourceFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::Master;
use super::capture::Capture;
use super::channel::{Channel, Rest};
use super::complaints::{Complaint, Complaints};
use super::node::NodePeer;
use super::notify::{NotifySocket, Said, Speaker, Turn};
use super::outbox::{Full, Outbox};
use super::token::Source;
use crate::account::Kind;
use crate::error::Cause;
use crate::journal::{self, Origin, Stream};
use crate::message::ToWorker;
use crate::supervisor::{Event, Generation, WorkerId};
use crate::sys::process::{Child, Life, reap_stranger};

/// Turns of reading that empty a socket of datagrams, of which the kernel keeps 512 at most where nobody has changed that.
const NOTIFY_TURNS: usize = 8;

/// A worker that has been spawned and not yet reaped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) channel: Channel,
    pub(super) outbox: Arc<Outbox>,
    /// What was said between the master and a Node worker.
    pub(super) node: Option<NodePeer>,
    pub(super) notify: NotifySocket,
    /// The port that it was given to bind.
    pub(super) port: Option<u16>,
    /// What it does, in its own words (`STATUS=`).
    pub(super) status_text: Option<String>,
    pub(super) slot: usize,
    pub(super) generation: Generation,
    pub(super) messages_in: u64,
    pub(super) handler_panics: u64,
    /// How the log names it.
    pub(super) origin: Arc<Origin>,
    /// What the log has said of it.
    pub(super) complaints: Complaints,
    /// Its stdout and stderr, where they are not the master's own.
    pub(super) capture: Option<Capture>,
}

impl Process {
    /// The descriptors that the loop watches for this worker.
    pub(super) fn sources(&self, worker: WorkerId) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let exit = self.child.pidfd.as_ref().map(|pidfd| (Source::Exit(worker), pidfd.as_fd()));
        let channel = (Source::Channel(worker), self.channel.as_fd());
        let notify = (Source::Notify(worker), self.notify.as_fd());
        let captured = self.capture.iter().flat_map(Capture::pipes);
        let output = captured.map(move |(stream, pipe)| (Source::Output(worker, stream), pipe));
        [channel, notify].into_iter().chain(exit).chain(output)
    }
}

impl Master {
    pub(super) fn watch(&self, source: Source, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), source.token(), Interest::READABLE)
    }

    /// A line of the master's own.
    pub(super) fn send(&mut self, worker: WorkerId, line: &ToWorker, fd: Option<Arc<OwnedFd>>) {
        self.send_line(worker, &line.encode(), fd);
    }

    pub(super) fn send_line(&mut self, worker: WorkerId, line: &[u8], fd: Option<Arc<OwnedFd>>) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if process.outbox.say(line, fd) == Err(Full) {
            process.origin.account.count_dropped(1);
            self.peers.count_dropped(1);
            self.complain(worker, Complaint::LinesUnsent, || {
                ": a line to it was dropped: its queue is full, it does not read its channel".into()
            });
        }
    }

    pub(super) fn read_notify(&mut self, worker: WorkerId) {
        if self.take_notifications(worker) == Turn::More {
            self.unfinished.push(Source::Notify(worker));
        }
    }

    /// All that has come by now; one that goes on sending must not hold us.
    pub(super) fn read_all_of_notify(&mut self, worker: WorkerId) {
        if (0..NOTIFY_TURNS).all(|_| self.take_notifications(worker) == Turn::More) {
            self.unfinished.push(Source::Notify(worker));
        }
    }

    fn take_notifications(&mut self, worker: WorkerId) -> Turn {
        let Some(process) = self.processes.get_mut(&worker) else { return Turn::Drained };
        let speaker = Speaker { pid: process.child.pid, uid: self.launcher.worker_uid() };
        let mut heard = Vec::new();
        let turn = process.notify.read(speaker, |said| heard.push(said));
        for said in heard {
            self.take_notification(worker, said);
        }
        turn
    }

    fn take_notification(&mut self, worker: WorkerId, said: Said) {
        match said {
            Said::Ready => self.events.push_back(Event::SaidReady { worker }),
            Said::Alive => self.events.push_back(Event::SaidAlive { worker }),
            Said::Stopping => self.events.push_back(Event::SaidLeaving { worker }),
            Said::NeedsTime(span) => self.events.push_back(Event::NeedsTime { worker, span }),
            Said::Status(text) => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    let text = process.origin.account.keep_text(Kind::Status, text);
                    process.status_text = Some(text).filter(|text| !text.is_empty());
                }
            }
        }
    }

    pub(super) fn read_output(&mut self, worker: WorkerId, stream: Stream) {
        let capture = self.processes.get_mut(&worker).and_then(|process| process.capture.as_mut());
        let Some(capture) = capture else { return };
        match capture.read(stream, &mut self.buffer) {
            Rest::Drained => {}
            Rest::More => self.unfinished.push(Source::Output(worker, stream)),
            Rest::Ended => {
                if let Some(pipe) = capture.close(stream) {
                    report(worker, self.poll.registry().deregister(&mut SourceFd(&pipe.as_raw_fd())));
                }
            }
        }
    }

    /// Without pidfds, SIGCHLD only says that somebody's child may have exited.
    pub(super) fn look_for_exits(&mut self) {
        let workers: Vec<WorkerId> = self.processes.keys().copied().collect();
        for worker in workers {
            self.look_for_exit(worker);
        }
        self.reap_orphans();
    }

    /// Takes in a worker's end: its last words first, then what is left of its group, then the reap.
    pub(super) fn look_for_exit(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        match process.child.look() {
            Life::Running => return,
            // A zombie leads its group still, so the number cannot be a stranger's.
            Life::Exited => drop(process.child.signal_group(libc::SIGKILL)),
            Life::Gone => journal::warn!("worker {worker}: somebody else has reaped it; its status is lost"),
        }
        self.hear_last_words(worker);
        self.peers.leave(worker.0);
        self.ask_no_more(worker);
        self.binds.jobs.lose(worker);
        let Some(process) = self.processes.remove(&worker) else { return };
        self.guard_no_more(process.child.pid);
        for (_, fd) in process.sources(worker) {
            report(worker, self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd())));
        }
        self.unfinished.retain(|source| !source.is_of(worker));
        if let Some(status) = process.child.reap() {
            let stderr = process.capture.map(|capture| capture.finish(&mut self.buffer)).unwrap_or_default();
            self.events.push_back(Event::Exited { worker, status, stderr });
        }
        self.reap_orphans();
    }

    /// The first process of a container is every orphan's parent.
    pub(super) fn reap_orphans(&mut self) {
        match self.role {
            super::Role::Guest => {}
            // One that is being started is not known yet.
            super::Role::Init if self.births.are_starting() => {}
            super::Role::Init => {
                let own = |pid| self.processes.values().any(|process| process.child.pid == pid);
                while let Some(pid) = reap_stranger(own) {
                    journal::debug!("reaped orphan {pid}");
                }
            }
        }
    }
}

/// What the event loop refuses is said, and changes nothing.
fn report(worker: WorkerId, done: std::io::Result<()>) {
    if let Err(error) = done {
        journal::warn!("worker {worker}: {}", Cause(&error));
    }
}
