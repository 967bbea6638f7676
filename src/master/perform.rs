//! Actions of the core, performed.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Master;
use super::capture::Pipes;
use super::channel::Channel;
use super::complaints::Complaints;
use super::node::Dialect;
use super::notify::NotifySocket;
use super::outbox::{Bell, Outbox};
use super::process::Process;
use super::spawn::{Newcomer, passing};
use super::token::Source;
use crate::config::{ListenAddress, Output};
use crate::error::Cause;
use crate::handle::Word;
use crate::journal::{self, Origin, Place};
use crate::message::ToWorker;
use crate::node::{Farewell, Peer};
use crate::peers::WorkerInfo;
use crate::supervisor::{
    Action, Ending, Event, Generation, Notice, Notification, Reply, Severity, SpawnFailure, Ticket, WorkerId,
};
use crate::sys::spawn::Started;

impl Master {
    /// Does one thing; the last of all says how the cluster ended.
    pub(super) fn perform(&mut self, action: Action) -> Option<Ending> {
        match action {
            Action::Spawn { worker, slot, generation } => self.spawn(worker, slot, generation),
            Action::Disconnect { worker, by } => self.disconnect(worker, by),
            Action::HearOut { worker } => self.hear_out(worker),
            Action::Abort { worker } => self.abort(worker),
            Action::Kill { worker } => self.kill(worker),
            Action::CloseListeners => self.listeners.close(),
            Action::ReleaseListeners { unused_since } => self.listeners.release(unused_since),
            Action::Steer { slots } => self.listeners.steer(&slots),
            Action::LookAtQueue { slot } => {
                if self.listeners.is_drained(slot) {
                    self.outcomes.push_back(Event::QueueSeenEmpty { slot });
                }
            }
            Action::CloseSlot { slot } => self.listeners.close_slot(slot),
            Action::ForgetGeneration { generation } => {
                self.launcher.forget(generation);
                self.listeners.forget(generation);
            }
            Action::StartGuard => self.replace_guard(),
            Action::ReopenLogs => journal::reopen(),
            Action::Reply { ticket, reply } => self.reply(ticket, &reply),
            Action::Report(notice) => self.report(&notice),
            Action::Finish(ending) => return Some(ending),
        }
        None
    }

    fn spawn(&mut self, worker: WorkerId, slot: usize, generation: Generation) {
        let outcome = match self.try_spawn(worker, slot, generation) {
            Ok(()) => Event::Spawned { worker },
            Err(failure) => Event::SpawnFailed { worker, failure },
        };
        self.outcomes.push_back(outcome);
    }

    fn try_spawn(
        &mut self,
        worker: WorkerId,
        slot: usize,
        generation: Generation,
    ) -> Result<(), SpawnFailure> {
        self.launcher.pin(generation)?;
        self.guard_if_needed(generation).map_err(|error| passing("the guard", &error))?;
        self.listeners.open_slot(slot).map_err(|error| passing("a socket for the slot", &error))?;
        let dialect = Dialect::of(&self.config);
        let (channel, theirs) = Channel::pair().map_err(|error| passing("channel", &error))?;
        let notify = NotifySocket::bind(worker).map_err(|error| passing("notify socket", &error))?;
        let pipes = self.pipes().map_err(|error| passing("output pipe", &error))?;
        let is_given = |port| self.processes.values().any(|process| process.port == Some(port));
        let port = self.launcher.port(is_given).map_err(|error| passing("a port for the worker", &error))?;
        let newcomer = Newcomer {
            worker,
            slot,
            generation,
            notify: notify.address(),
            listeners: self.listeners.for_slot(slot).collect(),
            channel: theirs.as_fd(),
            dialect,
            output: pipes.as_ref().map(|pipes| pipes.theirs.each_ref().map(AsFd::as_fd)),
            port,
            guard: self.guard.control(),
        };
        let Started { child, announced } = self.launcher.spawn(&mut self.spawner, &newcomer)?;
        if self.guard.control().is_some() && !announced {
            self.end_mute_guard("a new worker could not be announced");
        }
        let origin = Origin::new(worker.0, slot, child.pid);
        let capture = pipes.map(|pipes| pipes.capture(Arc::clone(&origin)));
        let bell = Bell { registry: Arc::clone(&self.registry), token: Source::Channel(worker).token() };
        let info = WorkerInfo::new(worker.0, slot, child.pid, generation.0);
        let process = Process {
            outbox: Arc::new(Outbox::new(info, channel.socket(), bell, Arc::clone(&origin.account))),
            child,
            channel,
            node: (dialect == Dialect::Node).then(Peer::new),
            notify,
            port,
            status_text: None,
            slot,
            generation,
            messages_in: 0,
            handler_panics: 0,
            origin,
            capture,
            complaints: Complaints::default(),
        };
        journal::debug!(
            "worker {worker} (slot {slot}, generation {generation}) started as pid {}",
            process.child.pid
        );
        let watched = process.sources(worker).try_for_each(|(source, fd)| self.watch(source, fd));
        if let Err(error) = watched {
            self.guard_no_more(process.child.pid);
            process.child.end_now();
            return Err(passing("event loop", &error));
        }
        self.peers.join(Arc::clone(&process.outbox));
        self.processes.insert(worker, process);
        Ok(())
    }

    /// Where a worker's output is captured, and as whom it may open them anew.
    fn pipes(&self) -> std::io::Result<Option<Pipes>> {
        match self.config.output.unwrap_or_default() {
            Output::Inherit => Ok(None),
            Output::Log => {
                Pipes::new(self.launcher.changes_user().then(|| self.launcher.worker_uid())).map(Some)
            }
        }
    }

    fn disconnect(&mut self, worker: WorkerId, by: Notification) {
        self.peers.leave(worker.0);
        let own = ToWorker::Disconnect.encode();
        let (line, signals) = match (self.converse(worker, Peer::dismiss), by) {
            (Some(Farewell::Line(line)), _) => (Some(line), Signals::Continue),
            (Some(Farewell::Signal), _) | (None, Notification::Signal) => (None, Signals::Stop),
            (Some(Farewell::Said), _) => (None, Signals::Continue),
            (None, Notification::Channel) => (Some(own), Signals::Continue),
            (None, Notification::ChannelAndSignal) => (Some(own), Signals::Stop),
        };
        if let Some(line) = line {
            self.send_line(worker, &line, None);
        }
        let Some(process) = self.processes.get(&worker) else { return };
        let stop = (signals == Signals::Stop).then_some(self.config.stop_signal);
        // A stopped process reads no line and dies of no signal but SIGKILL.
        for signal in stop.into_iter().chain([libc::SIGCONT]) {
            warn_unless_gone(worker, process.child.signal(signal));
        }
    }

    /// A stopped process is continued, or the signal would wait with it.
    fn abort(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        for signal in [libc::SIGABRT, libc::SIGCONT] {
            warn_unless_gone(worker, process.child.signal(signal));
        }
    }

    fn kill(&mut self, worker: WorkerId) {
        self.peers.leave(worker.0);
        let Some(process) = self.processes.get(&worker) else { return };
        warn_unless_gone(worker, process.child.signal_group(libc::SIGKILL));
        // It may have left its group, or the group may be gone with it a zombie.
        warn_unless_gone(worker, process.child.signal(libc::SIGKILL));
    }

    fn reply(&mut self, ticket: Ticket, reply: &Reply) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            let listening = waiting.reply.send(Word::Reply(reply.clone())).is_ok();
            if listening && *reply == Reply::Accepted {
                self.waiting.insert(ticket, waiting);
            }
        }
    }

    fn report(&self, notice: &Notice) {
        let level = match notice.severity() {
            Severity::Error => log::Level::Error,
            Severity::Warning => log::Level::Warn,
            Severity::Info => log::Level::Info,
            Severity::Debug => log::Level::Debug,
        };
        let place = Place { module: module_path!(), file: file!(), line: line!() };
        let write = match notice {
            Notice::GaveUp { .. } => journal::write_last,
            _ => journal::write,
        };
        write(level, "proteus_cluster", place, format_args!("{notice}{}", self.what_next(notice)));
    }

    /// Where the cluster listens, and what to type next.
    fn what_next(&self, notice: &Notice) -> String {
        if !matches!(notice, Notice::AllReady { .. }) {
            return String::new();
        }
        let pid = std::process::id();
        let mut parts: Vec<String> =
            self.listeners.addresses().map(|(name, address)| format!("; {name} on {address}")).collect();
        match &self.api_address {
            Some(api) => {
                let header = self.config.api.as_ref().filter(|config| config.has_token());
                let header = header.map_or("", |_| " -H 'Authorization: Bearer TOKEN'");
                parts.push(format!("; API on {api}; try: {}, kill -USR2 {pid}", api_commands(api, header)));
            }
            None => parts.push(format!("; to restart: kill -USR2 {pid}; to stop: kill -INT {pid}")),
        }
        parts.concat()
    }
}

/// Which signals go with an order to disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signals {
    Continue,
    /// `stopSignal` first.
    Stop,
}

fn api_commands(api: &ListenAddress, header: &str) -> String {
    let curl = match api {
        ListenAddress::Unix(path) => format!("curl{header} --unix-socket {} localhost", path.display()),
        ListenAddress::Abstract(name) => {
            format!("curl{header} --abstract-unix-socket {} localhost", name.display())
        }
        // Every address of the machine is no address to type.
        ListenAddress::Tcp(at) if at.ip().is_unspecified() => format!("curl{header} localhost:{}", at.port()),
        ListenAddress::Tcp(_) | ListenAddress::Udp(_) => format!("curl{header} {api}"),
    };
    format!("{curl}/status, {curl}/restart, {curl}/shutdown")
}

fn warn_unless_gone(worker: WorkerId, sent: std::io::Result<()>) {
    match sent {
        Ok(()) => {}
        // It has exited; the reap is on its way.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => journal::warn!(
            "worker {worker} cannot be signalled, neither to stop nor to kill it: it runs as a user that the master may not signal without CAP_KILL"
        ),
        Err(error) => journal::warn!("worker {worker}: signal: {}", Cause(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type_can_be_typed() {
        let table = [
            ("127.0.0.1:8111", "curl 127.0.0.1:8111/status"),
            ("0.0.0.0:8111", "curl localhost:8111/status"),
            ("[::]:8111", "curl localhost:8111/status"),
            ("unix:/run/api.sock", "curl --unix-socket /run/api.sock localhost/status"),
        ];
        for (address, command) in table {
            let commands = api_commands(&address.parse().unwrap(), "");
            assert!(commands.starts_with(command), "{commands}");
        }
    }
}
