//! What the core shows of itself: the part of the status that it decides.

use std::time::Duration;

use super::ids::{Generation, RestartId, WorkerId};
use super::shutdown::Stage;
use super::slot::{LastExit, Seat, Slot, State, Worker};
use super::{Moment, Supervisor};

/// A snapshot of the cluster; pids, addresses and memory are the driver's to add.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: MasterState,
    pub(crate) generation: Generation,
    pub(crate) uptime: Duration,
    /// How many workers are wanted.
    pub(crate) wanted: usize,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) restart: Option<RestartView>,
    pub(crate) crashes: u64,
    pub(crate) planned: u64,
    pub(crate) refused: u64,
    pub(crate) budget_left: u32,
    pub(crate) readiness: Readiness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MasterState {
    Running,
    Restarting,
    ShuttingDown,
}

/// Whether traffic should come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    NotReady,
}

/// One row a worker, and one for each empty seat.
#[derive(Clone, Debug)]
pub(crate) struct WorkerView {
    pub(crate) id: WorkerId,
    pub(crate) slot: usize,
    pub(crate) generation: Generation,
    pub(crate) state: WorkerState,
    pub(crate) uptime: Duration,
    pub(crate) respawns: u64,
    pub(crate) last_exit: Option<LastExit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    Starting,
    Ready,
    Disconnecting,
    Backoff,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestartView {
    pub(crate) id: RestartId,
    pub(crate) state: RestartState,
    pub(crate) replaced: usize,
    pub(crate) total: usize,
    pub(crate) reason: Option<String>,
    pub(crate) failed: Option<LastExit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartState {
    Running(RestartPhase),
    Completed,
    Aborted,
}

/// How far a restart has come that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPhase {
    Canary,
    Rest,
    RollingBack,
}

impl Supervisor {
    /// The cluster as it stands at `now`.
    pub(crate) fn status(&self, now: Moment) -> View {
        let state = match self.stage {
            Stage::Running if self.is_restarting() => MasterState::Restarting,
            Stage::Running => MasterState::Running,
            Stage::ShuttingDown { .. } | Stage::Ended => MasterState::ShuttingDown,
        };
        let now = self.now.max(now);
        View {
            state,
            generation: self.generation,
            uptime: now.0,
            wanted: self.policy.workers,
            workers: self.slots.iter().enumerate().flat_map(|(index, slot)| rows(index, slot, now)).collect(),
            restart: self.restart_view(),
            crashes: self.crashes,
            planned: self.planned,
            refused: self.refused,
            budget_left: self.budget.left(),
            readiness: self.readiness(),
        }
    }

    fn readiness(&self) -> Readiness {
        let ready = self.seats_and_successors().filter(|worker| worker.is_ready()).count();
        if self.stage == Stage::Running && ready >= self.policy.min_ready {
            Readiness::Ready
        } else {
            Readiness::NotReady
        }
    }
}

fn rows(index: usize, slot: &Slot, now: Moment) -> impl Iterator<Item = WorkerView> {
    let empty = match slot.seat {
        Seat::Waiting { last: Some(id), generation, .. } | Seat::Vacant { last: Some(id), generation } => {
            Some((id, generation))
        }
        Seat::Waiting { last: None, .. }
        | Seat::Vacant { last: None, .. }
        | Seat::Taken(_)
        | Seat::Closed => None,
    };
    let row = move |id, generation, state, uptime| WorkerView {
        id,
        slot: index,
        generation,
        state,
        uptime,
        respawns: slot.respawns,
        last_exit: slot.last_exit.clone(),
    };
    let waiting = empty.map(|(id, generation)| row(id, generation, WorkerState::Backoff, Duration::ZERO));
    let living = slot.workers().map(move |w| row(w.id, w.generation, shown(w), now - w.started));
    waiting.into_iter().chain(living.collect::<Vec<_>>())
}

fn shown(worker: &Worker) -> WorkerState {
    match worker.state {
        State::Spawning | State::Starting => WorkerState::Starting,
        State::Ready { .. } => WorkerState::Ready,
        State::Hung { .. }
        | State::Disconnecting { .. }
        | State::Killed { .. }
        | State::Unkillable { .. } => WorkerState::Disconnecting,
    }
}
