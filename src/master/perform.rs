//! Actions of the core, performed.

use std::io;

use super::Master;
use crate::config::ListenAddress;
use crate::error::Cause;
use crate::handle::Word;
use crate::journal::{self, Place};
use crate::message::ToWorker;
use crate::node::{Farewell, Peer};
use crate::supervisor::{Action, Ending, Event, Notice, Notification, Reply, Severity, Ticket, WorkerId};

impl Master {
    /// Does one thing; the last of all says how the cluster ended.
    pub(super) fn perform(&mut self, action: Action) -> Option<Ending> {
        match action {
            Action::Spawn { worker, slot, generation } => self.spawn(worker, slot, generation),
            Action::Disconnect { .. } | Action::Abort { .. } | Action::Kill { .. } => self.order(action),
            Action::HearOut { worker } => self.hear_out(worker),
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

    /// What is ordered of one worker.
    pub(super) fn order(&mut self, action: Action) {
        match action {
            Action::Disconnect { worker, .. } | Action::Abort { worker } | Action::Kill { worker }
                if self.births.holds(worker) =>
            {
                self.order_unborn(worker, action);
            }
            Action::Disconnect { worker, by } => self.disconnect(worker, by),
            Action::Abort { worker } => self.abort(worker),
            Action::Kill { worker } => self.kill(worker),
            _ => {}
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
        if let Some(process) = self.processes.get(&worker) {
            if signals == Signals::Stop {
                let sent = process.child.signal(self.config.stop_signal);
                self.note_signal(worker, sent);
            }
            self.resume(worker);
        }
        self.outcomes.push_back(Event::Told { worker });
    }

    /// A stopped process reads no line and dies of no signal but SIGKILL. One that may not be signalled is said to be
    /// so where it needs another signal than this.
    fn resume(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        if let Err(error) = process.child.signal(libc::SIGCONT) {
            journal::debug!("worker {worker}: SIGCONT: {error}");
        }
    }

    fn abort(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        let sent = process.child.signal(libc::SIGABRT);
        self.note_signal(worker, sent);
        self.resume(worker);
    }

    fn kill(&mut self, worker: WorkerId) {
        self.peers.leave(worker.0);
        let Some(process) = self.processes.get(&worker) else { return };
        let group = process.child.signal_group(libc::SIGKILL);
        // It may have left its group, or the group may be gone with it a zombie.
        let sent = process.child.signal(libc::SIGKILL);
        if let Err(error) = group
            && sent.is_ok()
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            journal::warn!("worker {worker}: SIGKILL to its process group: {error}");
        }
        self.note_signal(worker, sent);
    }

    /// What the core must know of a signal: that the kernel does not let us send it.
    fn note_signal(&mut self, worker: WorkerId, sent: io::Result<()>) {
        match sent {
            Ok(()) => {}
            // It has exited; the reap is on its way.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                let cause = Cause(&error).to_string();
                self.outcomes.push_back(Event::SignalDenied { worker, cause });
            }
            Err(error) => journal::warn!("worker {worker}: signal: {error}"),
        }
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
