//! What happened in a schedule, so that the simulator can prove that it is not blind.

macro_rules! scenes {
    ($($scene:ident),* $(,)?) => {
        /// A situation worth meeting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Scene { $($scene),* }

        impl Scene {
            pub(super) const ALL: &[Scene] = &[$(Scene::$scene),*];
        }
    };
}

scenes! {
    AllReady,
    Crash,
    CrashBeyondTheBudget,
    BudgetRefilled,
    LeftByItself,
    PassingFailure,
    LastingFailure,
    ReadyByWord,
    ReadyByAge,
    ReadyTimeout,
    RefusedReleaseAloneSaidReady,
    AskedForTimeToStart,
    AskedForTimeToLeave,
    RestartCompleted,
    RestartAborted,
    AbortedByExit,
    AbortedByLeaving,
    AbortedByTimeout,
    AbortedBySpawnFailure,
    AbortedAfterAPromotion,
    ReplacementTriedAgain,
    PromotedWorkerLost,
    RefusedWorkerLost,
    RolledBack,
    ComebackFailed,
    RollbackGaveWay,
    RestartOrderedDuringARollback,
    ShutdownDuringARollback,
    RestartRemembered,
    RestartIntoAnEmptySeat,
    OldWorkerCrashedDuringARestart,
    ShutdownDuringARestart,
    ShutdownOfABootingWorker,
    ForcedByASecondSignal,
    SignalRepeatedAtOnce,
    ForcedByOrder,
    KilledAtTheDisconnectTimeout,
    Unkillable,
    UnkillableInASeat,
    OutOfReach,
    AbortedByAnOldWorkerOutOfReach,
    StrayDelivery,
    MergedDeliveries,
    LateLoop,
    EndedGraceful,
    EndedForced,
    GaveUp,
    CouldNotStart,
    CalmRestart,
    Healed,
    OrderAfterTheEnd,
    SignalledAfterAll,
    Hung,
    HungReplacement,
    KilledAfterAbort,
    SilencePardoned,
    PausedWhileServing,
    Recycled,
    RecycleFailed,
    RecycleDroppedByARestart,
    NoSuchWorker,
    CallerLeft,
    ScaledUp,
    ScaledDown,
    ScaledToTheBound,
    ScaledDuringARestart,
    ScaledAwayAReplacement,
    ScaledUpWhileTheSlotDrains,
    SlotClosed,
    DrainedFirst,
    DrainedInVain,
    KeptWhileDraining,
    SteeredAround,
}

/// The scenes of one schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Story(u128);

impl Story {
    pub(super) fn tell(&mut self, scene: Scene) {
        self.0 |= 1 << scene as u64;
    }

    pub(super) fn tells(self, scene: Scene) -> bool {
        self.0 & (1 << scene as u64) != 0
    }
}

/// In how many schedules each scene was met.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) schedules: u64,
    pub(super) events: u64,
    met: [u64; Scene::ALL.len()],
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally { schedules: 0, events: 0, met: [0; Scene::ALL.len()] }
    }

    pub(super) fn add(&mut self, story: Story, events: u64) {
        self.schedules += 1;
        self.events += events;
        for (met, scene) in self.met.iter_mut().zip(Scene::ALL) {
            *met += u64::from(story.tells(*scene));
        }
    }

    pub(super) fn merge(&mut self, other: &Tally) {
        self.schedules += other.schedules;
        self.events += other.events;
        for (met, more) in self.met.iter_mut().zip(&other.met) {
            *met += more;
        }
    }

    pub(super) fn scenes(&self) -> impl Iterator<Item = (Scene, u64)> {
        Scene::ALL.iter().copied().zip(self.met)
    }
}
