//! Thousands of workers: what an event costs, and a loop that falls behind them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::harness::{Cluster, ms, policy};
use crate::supervisor::{Action, Event, Moment, Policy, Supervisor, WorkerId};

fn crowd(workers: usize, watchdog: Duration) -> Policy {
    Policy { watchdog: Some(watchdog), max_memory: Some(1 << 40), ..policy(workers) }
}

/// What a healthy worker says costs no look at the others.
#[test]
fn heartbeats_and_samples_are_taken_in_without_a_look_at_all_workers() {
    const WORKERS: usize = 4096;
    let mut cluster = Cluster::ready(crowd(WORKERS, ms(1000)));
    let looks = cluster.core.looks;
    for _ in 0..10 {
        for worker in 1..=WORKERS as u64 {
            assert!(cluster.says_alive(worker).is_empty());
            let worker = WorkerId(worker);
            assert!(cluster.tell(Event::MemorySampled { worker, bytes: 1 << 20 }).is_empty());
        }
        assert!(cluster.pass(500).is_empty());
    }
    let looks = cluster.core.looks - looks;
    assert!(looks <= 20, "{looks} looks for {} events", 20 * WORKERS);
}

/// So many have one that cannot keep up.
const WORKERS: u32 = 500;

/// A driver that cannot keep up: what it takes in lies back by more and more.
struct Slow {
    core: Supervisor,
    now: Moment,
    /// What an event takes it.
    cost: Duration,
    limit: Duration,
    /// By worker: when the next word is said that is not taken in yet.
    next_word: Vec<Moment>,
    silent: WorkerId,
    silent_from: Moment,
    aborted: BTreeSet<WorkerId>,
}

impl Slow {
    fn new(limit: Duration, cost: Duration) -> Self {
        let mut core = Supervisor::new(crowd(WORKERS as usize, limit));
        core.handle(Moment::default(), Event::Started);
        for worker in (1..=u64::from(WORKERS)).map(WorkerId) {
            core.handle(Moment::default(), Event::SaidReady { worker });
        }
        // Each has a beat of its own, and says each word well within the limit.
        let next_word = (0..WORKERS).map(|at| Moment(limit / 2 * at / WORKERS)).collect();
        let (now, aborted) = (Moment::default(), BTreeSet::new());
        let (silent, silent_from) = (WorkerId(7), Moment(limit * 3));
        Slow { core, now, cost, limit, next_word, silent, silent_from, aborted }
    }

    /// A word of this worker that it has said by now and that was not taken in.
    fn take_word(&mut self, worker: WorkerId) -> bool {
        let (now, limit) = (self.now, self.limit);
        let hangs = worker == self.silent;
        let next = &mut self.next_word[usize::try_from(worker.0).expect("small") - 1];
        let said = *next <= now && !(hangs && *next >= self.silent_from);
        if said {
            *next = *next + limit / 2;
        }
        said
    }

    /// One fact, what follows from it, and that time passed where that is due.
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front().or_else(|| self.time_passed()) {
            for action in self.core.handle(self.now, event) {
                match action {
                    Action::HearOut { worker } => {
                        while self.take_word(worker) {
                            events.push_back(Event::SaidAlive { worker });
                        }
                        events.push_back(Event::HeardOut { worker });
                    }
                    Action::Abort { worker } => drop(self.aborted.insert(worker)),
                    Action::Report(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            self.now = self.now + self.cost;
            if !self.aborted.is_empty() {
                return;
            }
        }
    }

    fn time_passed(&self) -> Option<Event> {
        let due = self.core.next_deadline().filter(|due| *due <= self.now);
        due.map(|_| Event::TimePassed)
    }

    /// Goes round all workers, one word each time, until so long has passed.
    fn run(&mut self, span: Duration) {
        let mut turn = (1..=u64::from(WORKERS)).cycle().map(WorkerId);
        let end = self.now + span;
        while self.now < end && self.aborted.is_empty() {
            let worker = turn.next().expect("for ever");
            if self.take_word(worker) {
                self.tell(Event::SaidAlive { worker });
            } else {
                self.tell(Event::TimePassed);
            }
        }
    }
}

/// A healthy worker has said alive in time by its own clock; that it is heard late is not its fault. One that is silent
/// is found all the same.
#[test]
fn a_loop_that_cannot_keep_up_kills_nobody_but_the_silent() {
    for (limit, micros) in [(1000, 200), (1000, 1600), (5000, 8000)] {
        let mut slow = Slow::new(ms(limit), Duration::from_micros(micros));
        slow.run(ms(limit) * 3);
        assert_eq!(slow.aborted, BTreeSet::new(), "limit {limit} ms, {micros} us an event");
        slow.run(ms(limit) * 10);
        assert_eq!(slow.aborted, BTreeSet::from([slow.silent]), "limit {limit} ms, {micros} us an event");
    }
}
