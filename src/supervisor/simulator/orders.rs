//! Orders in the books: what is expected to come of them.

use std::cmp::Ordering;
use std::time::Duration;

use super::books::{Answer, Asked, Asker, Books, Course, Life, Post};
use super::rolls::Way;
use super::story::Scene;
use crate::supervisor::{Order, Origin, Scale, Sockets, Ticket};

impl Books {
    pub(super) fn asked(&mut self, order: Order, ticket: Option<Ticket>) {
        let (running, ended) = (self.course == Course::Running, self.is_finished());
        let expects = match order {
            Order::Restart | Order::Shutdown(_) | Order::Scale(_) if running => Answer::Accepted,
            Order::Recycle(worker) if running && self.entry(worker).is_some() => Answer::Accepted,
            Order::Recycle(_) if running => Answer::Unknown,
            Order::ForceShutdown | Order::ReopenLogs if !ended => Answer::Accepted,
            Order::Restart
            | Order::Shutdown(_)
            | Order::ForceShutdown
            | Order::Scale(_)
            | Order::Recycle(_)
            | Order::ReopenLogs => Answer::Refused,
        };
        match order {
            Order::Scale(scale) if running => self.scaled(scale),
            Order::Recycle(worker) if running => self.wear(worker),
            Order::Restart
            | Order::Shutdown(_)
            | Order::ForceShutdown
            | Order::Scale(_)
            | Order::Recycle(_)
            | Order::ReopenLogs => {}
        }
        if ended {
            self.story.tell(Scene::OrderAfterTheEnd);
        }
        if order == Order::Restart && running {
            self.remembered += 1;
            if self.roll.as_ref().is_some_and(|roll| roll.way == Way::Back) {
                self.story.tell(Scene::RestartOrderedDuringARollback);
            }
        }
        self.turn.asked = match order {
            Order::Restart | Order::Scale(_) | Order::Recycle(_) => Asked::Nothing,
            Order::Shutdown(_) | Order::ForceShutdown | Order::ReopenLogs if ended => Asked::Nothing,
            Order::ReopenLogs => Asked::Reopen,
            Order::Shutdown(_) | Order::ForceShutdown if self.forces(order) => Asked::Force,
            Order::Shutdown(_) | Order::ForceShutdown => Asked::Shutdown,
        };
        if let Some(Ticket(number)) = ticket {
            assert_eq!(number, self.askers.len() as u64, "the world numbers tickets in order");
            self.askers.push(Asker { order, expects, answer: None, verdicts: 0, has_left: false });
        }
    }

    pub(super) fn left(&mut self, ticket: Ticket) {
        let asker = usize::try_from(ticket.0).ok().and_then(|index| self.askers.get_mut(index));
        if let Some(asker) = asker {
            asker.has_left = true;
            if asker.order == Order::Restart && asker.verdicts == 0 {
                self.story.tell(Scene::CallerLeft);
            }
        }
    }

    /// Slots come and go at the end; who is in one that goes is there no longer for anything.
    pub(super) fn scaled(&mut self, scale: Scale) {
        let from = self.wanted;
        let to = match scale {
            Scale::To(headcount) => headcount.get(),
            Scale::OneMore => from + 1,
            Scale::OneFewer => (from - 1).max(1),
        };
        self.wanted = to;
        match to.cmp(&from) {
            Ordering::Less => self.shrunk(),
            Ordering::Equal => self.story.tell(Scene::ScaledToTheBound),
            Ordering::Greater => self.grown_from(from),
        }
        if self.roll.is_some() && to != from {
            self.story.tell(Scene::ScaledDuringARestart);
        }
    }

    pub(super) fn shrunk(&mut self) {
        self.story.tell(Scene::ScaledDown);
        let wanted = self.wanted;
        let drains = self.policy.sockets == Sockets::PerSlot && !self.policy.disconnect_timeout.is_zero();
        let now = self.now;
        for entry in self.living.iter_mut().filter(|entry| entry.slot >= wanted) {
            let at_work = matches!(entry.life, Life::Booting | Life::Serving { .. });
            if drains && at_work && entry.post == Post::Seat {
                self.draining.entry(entry.slot).or_insert(now);
                continue;
            }
            if entry.post == Post::Trial {
                self.story.tell(Scene::ScaledAwayAReplacement);
            }
            entry.post = Post::Leaving;
        }
        self.vacant.retain(|slot| *slot < wanted);
        self.unlucky.retain(|slot| *slot < wanted);
        if let Some(roll) = &mut self.roll {
            roll.tried.retain(|slot, _| *slot < wanted);
        }
    }

    pub(super) fn grown_from(&mut self, from: usize) {
        self.story.tell(Scene::ScaledUp);
        let more = (self.wanted - from) as u64;
        self.grown += more;
        if let Some(barren) = &mut self.barren {
            barren.allowed += more;
        }
        if self.living.iter().any(|entry| (from..self.wanted).contains(&entry.slot)) {
            self.story.tell(Scene::ScaledUpWhileTheSlotDrains);
        }
        self.seats.resize(self.wanted.max(self.seats.len()), self.running_generation);
        for slot in from..self.wanted {
            let running = self.running_generation;
            let kept = self.draining.remove(&slot).is_some();
            let holder = self.living.iter_mut().find(|entry| entry.slot == slot && entry.post == Post::Seat);
            match holder.filter(|_| kept) {
                Some(holder) if holder.generation == running => self.story.tell(Scene::KeptWhileDraining),
                Some(holder) => holder.post = Post::Leaving,
                None => {}
            }
            self.seats[slot] = running;
        }
        self.open.resize(self.wanted.max(self.open.len()), false);
        // They have to boot first.
        self.all_were_ready = false;
    }

    /// A force order, or a second signal; two within 300 ms are one.
    pub(super) fn forces(&mut self, order: Order) -> bool {
        match (order, self.signalled) {
            (
                Order::Restart
                | Order::Scale(_)
                | Order::Recycle(_)
                | Order::ReopenLogs
                | Order::Shutdown(Origin::Request),
                _,
            ) => false,
            (Order::ForceShutdown, _) => {
                self.story.tell(Scene::ForcedByOrder);
                true
            }
            (Order::Shutdown(Origin::Signal), None) => {
                self.signalled = Some(self.now);
                false
            }
            (Order::Shutdown(Origin::Signal), Some(first)) => {
                let again = self.now - first >= Duration::from_millis(300);
                self.story.tell(if again {
                    Scene::ForcedByASecondSignal
                } else {
                    Scene::SignalRepeatedAtOnce
                });
                again
            }
        }
    }
}
