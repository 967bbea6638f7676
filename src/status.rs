//! The status of a cluster: what `/status` and `Handle::status` answer. Names are fixed.

use serde::Serialize;

use crate::config::ListenAddress;
use crate::supervisor::{
    Cause, ExitStatus, LastExit, MasterState, Readiness, RestartPhase, RestartState, RestartView, View,
    WorkerState, WorkerView,
};

/// A cluster as it stands. Serializes to the JSON of `/status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// The master itself.
    pub master: MasterStatus,
    /// One row a worker, and one for each slot that waits for its next worker.
    pub workers: Vec<WorkerStatus>,
    /// The sockets that the workers share.
    pub listeners: Vec<ListenerStatus>,
    /// The restart that runs, or the last one.
    pub restart: Option<RestartStatus>,
    /// Counts of forks.
    pub forks: ForkStatus,
    /// Counts of orders.
    pub orders: OrderStatus,
    /// What was thrown away.
    pub dropped: DroppedStatus,
}

/// The master process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MasterStatus {
    /// Its process id.
    pub pid: u32,
    /// The version of this crate.
    pub version: &'static str,
    /// `running`, `restarting` or `shutting-down`.
    pub state: &'static str,
    /// The generation that serves; the first is 1.
    pub generation: u64,
    /// How many workers are wanted: the setting `worker`, until an order to scale changes it.
    pub workers: usize,
    /// Milliseconds since the workers were first started.
    pub uptime_ms: u64,
    /// Whether `minReady` workers are ready and no shutdown has begun: what `/ready` answers.
    pub ready: bool,
    /// Panics of message listeners.
    pub listener_panics: u64,
}

/// A worker, or a slot that waits for its next one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorkerStatus {
    /// From 1, never reused. Of a waiting slot: the last worker's.
    pub id: u64,
    /// Its stable seat, from 0.
    pub slot: usize,
    /// `None` while the slot waits.
    pub pid: Option<u32>,
    /// The restart that it came with.
    pub generation: u64,
    /// `starting`, `ready`, `disconnecting` or `backoff`.
    pub state: &'static str,
    /// The port that it was given in place of `{port}`.
    pub port: Option<u16>,
    /// What it does, in its own words (`STATUS=` by `sd_notify`).
    pub status: Option<String>,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Resident memory, in bytes.
    pub rss_bytes: Option<u64>,
    /// Processor time since the previous look, in percent of one processor.
    pub cpu_percent: Option<f64>,
    /// Crashes of the slot.
    pub respawns: u64,
    /// Messages from it.
    pub messages_in: u64,
    /// Messages to it.
    pub messages_out: u64,
    /// Panics of its message handlers.
    pub handler_panics: u64,
    /// Bytes that it makes the master hold: log lines, replies, answers and handles that wait, and its own words.
    pub held_bytes: u64,
    /// Lines of it, and to it, that were dropped or refused.
    pub lines_dropped: u64,
    /// How the slot's previous worker ended.
    pub last_exit: Option<ExitRecord>,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExitRecord {
    /// `stopped`, `boot-failed`, `quick`, `crashed`, `ready-timeout`, `hung`, `killed-at-timeout` or `spawn-failed`.
    pub cause: &'static str,
    /// The exit status, if it exited.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// What the worker, or the system, said of it.
    pub reason: Option<String>,
    /// The last lines on its stderr, where that is captured.
    pub stderr: Vec<String>,
    /// The worker that ended.
    pub worker: u64,
}

/// A socket that the workers share.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its address, with the real port.
    pub address: String,
}

/// A rolling restart.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RestartStatus {
    /// From 1.
    pub id: u64,
    /// `running`, `completed` or `aborted`.
    pub state: &'static str,
    /// While it runs: `canary` (the first replacement is on trial), `rest` (the others follow) or `rolling-back`
    /// (it has failed, and the generation before takes its seats again).
    pub phase: Option<&'static str>,
    /// Slots that run the new generation.
    pub replaced: usize,
    /// All slots.
    pub total: usize,
    /// Why it is rolled back, or was aborted.
    pub reason: Option<String>,
    /// How the replacement ended whose failure aborted it.
    pub failed: Option<ExitRecord>,
}

/// Counts of forks.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ForkStatus {
    /// Exits that nobody asked for. Never reset.
    pub crashes: u64,
    /// Replacements of workers that did not crash: those of restarts, of workers that came of
    /// age, grew too big or were asked to go, and of workers that left by their own wish.
    pub planned: u64,
    /// Crash replacements allowed before the cluster may give up.
    pub budget_left: u32,
}

/// Counts of orders.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OrderStatus {
    /// Orders that came when a shutdown had begun. Never reset.
    pub refused: u64,
    /// Calls of the control API that were refused, with any status from 400 to 499 or for want of room. Never reset.
    pub refused_calls: u64,
}

/// What was thrown away, ever.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DroppedStatus {
    /// Lines between master and workers.
    pub messages: u64,
    /// Lines of the log.
    pub log_lines: u64,
}

impl Status {
    pub(crate) fn of(view: View, listeners: Vec<ListenerStatus>) -> Self {
        let master = MasterStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            state: match view.state {
                MasterState::Running => "running",
                MasterState::Restarting => "restarting",
                MasterState::ShuttingDown => "shutting-down",
            },
            generation: view.generation.0,
            workers: view.wanted,
            uptime_ms: milliseconds(view.uptime),
            ready: view.readiness == Readiness::Ready,
            listener_panics: 0,
        };
        Status {
            master,
            workers: view.workers.into_iter().map(WorkerStatus::of).collect(),
            listeners,
            restart: view.restart.map(RestartStatus::of),
            forks: ForkStatus { crashes: view.crashes, planned: view.planned, budget_left: view.budget_left },
            orders: OrderStatus { refused: view.refused, refused_calls: 0 },
            dropped: DroppedStatus::default(),
        }
    }
}

impl WorkerStatus {
    fn of(view: WorkerView) -> Self {
        WorkerStatus {
            id: view.id.0,
            slot: view.slot,
            pid: None,
            generation: view.generation.0,
            state: match view.state {
                WorkerState::Starting => "starting",
                WorkerState::Ready => "ready",
                WorkerState::Disconnecting => "disconnecting",
                WorkerState::Backoff => "backoff",
            },
            port: None,
            status: None,
            uptime_ms: milliseconds(view.uptime),
            rss_bytes: None,
            cpu_percent: None,
            respawns: view.respawns,
            messages_in: 0,
            messages_out: 0,
            handler_panics: 0,
            held_bytes: 0,
            lines_dropped: 0,
            last_exit: view.last_exit.map(ExitRecord::of),
        }
    }
}

impl ExitRecord {
    pub(crate) fn of(exit: LastExit) -> Self {
        let (code, signal) = match exit.status {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
            Some(ExitStatus::Unknown) | None => (None, None),
        };
        let cause = Cause::name(exit.cause);
        ExitRecord { cause, code, signal, reason: exit.reason, stderr: exit.stderr, worker: exit.worker.0 }
    }
}

impl ListenerStatus {
    pub(crate) fn new(name: &str, address: &ListenAddress) -> Self {
        ListenerStatus { name: name.to_owned(), address: address.to_string() }
    }
}

impl RestartStatus {
    fn of(view: RestartView) -> Self {
        let state = match view.state {
            RestartState::Running(_) => "running",
            RestartState::Completed => "completed",
            RestartState::Aborted => "aborted",
        };
        let phase = match view.state {
            RestartState::Running(RestartPhase::Canary) => Some("canary"),
            RestartState::Running(RestartPhase::Rest) => Some("rest"),
            RestartState::Running(RestartPhase::RollingBack) => Some("rolling-back"),
            RestartState::Completed | RestartState::Aborted => None,
        };
        RestartStatus {
            id: view.id.0,
            state,
            phase,
            replaced: view.replaced,
            total: view.total,
            reason: view.reason,
            failed: view.failed.map(ExitRecord::of),
        }
    }
}

fn milliseconds(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
