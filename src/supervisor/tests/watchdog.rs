//! The watchdog: who is watched, what silence costs, who is forgiven.

use super::harness::{Cluster, Hearing, ms, policy};
use crate::supervisor::{Cause, Event, Notice, Policy, Severity, WorkerId};

fn watched(workers: usize) -> Policy {
    Policy { watchdog: Some(ms(2000)), ..policy(workers) }
}

#[test]
fn it_is_armed_at_ready_and_not_before() {
    let mut cluster = Cluster::boot(watched(1));
    cluster.says_hello(1);
    assert!(cluster.pass(5000).is_empty(), "a slow boot is the ready time-out's affair");
    cluster.says_ready(1);
    assert!(cluster.pass(1999).is_empty());
    assert_eq!(cluster.pass(1), ["abort 1"]);
}

#[test]
fn each_word_counts_from_when_it_is_said() {
    let mut cluster = Cluster::ready(watched(1));
    for _ in 0..5 {
        cluster.pass(1999);
        assert!(cluster.says_alive(1).is_empty());
    }
    cluster.says_ready(1);
    assert!(cluster.pass(1999).is_empty());
    assert_eq!(cluster.pass(1), ["abort 1"], "nothing but the heartbeat counts");
}

#[test]
fn a_hung_worker_may_write_its_core_and_is_a_crash_when_it_is_gone() {
    let mut cluster = Cluster::ready(watched(1));
    cluster.pass(2000);
    assert_eq!(cluster.rows(), ["0: 1 disconnecting of 1"]);
    assert!(cluster.says_alive(1).is_empty(), "too late");
    assert!(cluster.pass(4999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 1"]);
    assert_eq!(cluster.exits(1), ["spawn 2 in 0 of 1"]);
    assert_eq!(cluster.last_cause(0), Some(Cause::Hung));
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (1, 99));
}

#[test]
fn one_that_dies_of_the_abort_is_replaced_at_once() {
    let mut cluster = Cluster::ready(watched(1));
    for worker in 1..=3 {
        assert_eq!(cluster.pass(2000), [format!("abort {worker}")]);
        assert_eq!(cluster.exits(worker), [format!("spawn {} in 0 of 1", worker + 1)]);
        assert_eq!(cluster.last_cause(0), Some(Cause::Hung));
        cluster.says_ready(worker + 1);
    }
}

#[test]
fn hanging_again_and_again_soon_after_the_start_is_delayed_like_any_quick_failure() {
    let mut cluster = Cluster::ready(Policy { watchdog: Some(ms(100)), ..policy(1) });
    assert_eq!(cluster.pass(100), ["abort 1"]);
    assert_eq!(cluster.exits(1), ["spawn 2 in 0 of 1"]);
    cluster.says_ready(2);
    assert_eq!(cluster.pass(100), ["abort 2"]);
    assert!(cluster.exits(2).is_empty());
    assert_eq!(cluster.pass(100), ["spawn 3 in 0 of 1"]);
}

#[test]
fn without_the_setting_nobody_is_watched() {
    let mut cluster = Cluster::of(1);
    assert_eq!(cluster.wait(), None);
    assert!(cluster.says_alive(1).is_empty());
    assert!(cluster.pass(1_000_000).is_empty());
}

#[test]
fn those_that_were_told_to_go_are_not_watched() {
    let mut cluster = Cluster::ready(Policy { disconnect_timeout: ms(60_000), ..watched(2) });
    cluster.scale_to(1);
    for _ in 0..20 {
        assert!(cluster.pass(1900).is_empty());
        cluster.says_alive(1);
    }
}

#[test]
fn a_replacement_that_hangs_ends_the_restart() {
    let mut cluster = Cluster::ready(Policy { canary: ms(5000), ..watched(1) });
    cluster.restart(0);
    cluster.says_ready(2);
    cluster.pass(1000);
    cluster.says_alive(1);
    let orders = cluster.pass(1000);
    assert_eq!(orders, ["abort 2"]);
    assert_eq!(cluster.rows(), ["0: 1 ready of 1", "0: 2 disconnecting of 2"]);
    assert_eq!(cluster.exits(2), ["0 aborted: worker 2 said nothing for 2000 ms"]);
    assert_eq!(cluster.last_cause(0), Some(Cause::Hung));
    assert_eq!((cluster.status().crashes, cluster.budget_left()), (0, 100));
}

#[test]
fn a_worker_whose_channel_is_paused_cannot_be_called_silent() {
    let (paused, resumed) =
        (Event::ChannelPaused { worker: WorkerId(1) }, Event::ChannelResumed { worker: WorkerId(1) });
    let mut cluster = Cluster::ready(watched(1));
    cluster.pass(1900);
    cluster.tell(paused.clone());
    assert!(cluster.pass(100_000).is_empty());
    assert!(cluster.says_alive(1).is_empty(), "by sd_notify, which is never paused");
    assert!(cluster.pass(100_000).is_empty());
    cluster.tell(resumed);
    assert!(cluster.pass(1999).is_empty());
    assert_eq!(cluster.pass(1), ["abort 1"]);
    let mut cluster = Cluster::boot(watched(1));
    cluster.tell(paused);
    cluster.says_ready(1);
    assert!(cluster.pass(100_000).is_empty(), "paused before it was ready");
}

/// The master stood still, and perhaps its workers with it: they are heard before they are judged.
#[test]
fn a_loop_that_was_late_by_half_the_time_blames_itself() {
    for (late, judged) in [(1000, vec!["abort 1", "abort 2"]), (1001, vec![]), (60_000, vec![])] {
        let mut cluster = Cluster::ready(watched(2));
        cluster.stall(2000 + late);
        assert_eq!(cluster.tell(Event::TimePassed), judged, "late by {late} ms");
        if judged.is_empty() {
            assert!(cluster.pass(1999).is_empty());
            assert_eq!(cluster.pass(1), ["abort 1", "abort 2"], "but not for ever");
        }
    }
}

#[test]
fn facts_that_are_told_late_come_before_the_verdict() {
    let mut cluster = Cluster::ready(watched(2));
    cluster.hearing = Hearing::Later;
    cluster.stall(2500);
    assert_eq!(cluster.says_alive(2), ["hear out 1"]);
    assert!(cluster.tell(Event::TimePassed).is_empty(), "asked once");
    assert!(cluster.says_alive(1).is_empty(), "it was on its way");
    assert!(cluster.was_heard_out(1).is_empty());
    assert!(cluster.pass(1999).is_empty());
    assert_eq!(cluster.pass(1), ["hear out 1", "hear out 2"]);
    assert_eq!(cluster.was_heard_out(2), ["abort 2"]);
}

#[test]
fn a_shutdown_does_not_wait_for_a_core_longer_than_for_the_rest() {
    let mut cluster = Cluster::ready(Policy { disconnect_timeout: ms(1000), ..watched(1) });
    cluster.pass(2000);
    assert_eq!(cluster.signal(), ["close"], "it is dying already");
    assert_eq!(cluster.pass(1000), ["kill 1"]);
    assert_eq!(cluster.exits(1), ["finish Graceful"]);
    let mut cluster = Cluster::ready(watched(1));
    cluster.pass(2000);
    assert_eq!(cluster.force(0), ["close", "0 accepted", "kill 1"]);
}

#[test]
fn one_that_survives_its_kill_leaves_its_seat_to_another() {
    let mut cluster = Cluster::ready(watched(1));
    cluster.pass(2000);
    assert_eq!(cluster.pass(5000), ["kill 1"]);
    assert_eq!(cluster.pass(5000), ["spawn 2 in 0 of 1"]);
    cluster.exits(1);
    assert_eq!(cluster.last_cause(0), Some(Cause::Hung));
}

#[test]
fn what_happens_is_told() {
    let mut cluster = Cluster::ready(watched(1));
    cluster.notices.clear();
    cluster.pass(2000);
    cluster.exits(1);
    let told: Vec<String> = cluster.notices.iter().map(Notice::to_string).collect();
    let hung =
        "worker 1 (slot 0) has said nothing for 2000 ms and counts as hung; SIGABRT now, SIGKILL in 5000 ms";
    assert_eq!(told[0], hung);
    let crashed =
        "worker 1 (slot 0) was hung: exit status 1; respawning now, 99 replacements left".to_owned();
    assert_eq!(told[1], crashed);
    assert_eq!(cluster.notices[0].severity(), Severity::Warning);
}
