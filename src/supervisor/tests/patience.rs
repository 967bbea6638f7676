//! A worker that asks for more time, to start or to stop.

use super::harness::{Cluster, ms, policy};
use crate::config::Ready;
use crate::supervisor::{Event, Policy, WorkerId};

fn needs(cluster: &mut Cluster, worker: u64, millis: u64) {
    let event = Event::NeedsTime { worker: WorkerId(worker), span: ms(millis) };
    assert!(cluster.tell(event).is_empty());
}

#[test]
fn a_start_is_put_off_from_each_word_on() {
    let mut cluster = Cluster::boot(Policy { ready: Ready::Notify, ..policy(1) });
    needs(&mut cluster, 1, 20_000); // less than it has anyway
    cluster.pass(20_000);
    needs(&mut cluster, 1, 15_000);
    assert!(cluster.pass(14_999).is_empty());
    needs(&mut cluster, 1, 2000);
    assert!(cluster.pass(1999).is_empty());
    assert_eq!(cluster.pass(1), ["kill 1"]);
}

#[test]
fn who_asks_for_time_to_start_will_say_ready() {
    let mut cluster = Cluster::boot(policy(1));
    needs(&mut cluster, 1, 500);
    assert!(cluster.pass(29_999).is_empty());
    assert_eq!(cluster.rows(), ["0: 1 starting of 1"]);
    assert_eq!(cluster.pass(1), ["kill 1"]);
}

#[test]
fn a_stop_is_put_off_and_ends_all_the_same() {
    let mut cluster = Cluster::of(1);
    needs(&mut cluster, 1, 3_000_000); // it serves: there is nothing to put off
    cluster.signal();
    cluster.pass(9000);
    needs(&mut cluster, 1, 5000);
    assert!(cluster.pass(4999).is_empty());
    needs(&mut cluster, 1, u64::MAX);
    let hour = 3_600_000;
    assert!(cluster.pass(hour - 4000).is_empty());
    assert_eq!(cluster.pass(1), ["kill 1"], "an hour beyond the time-out is the most");
}
