//! The guard is lost: when there is another.

use super::harness::Cluster;
use crate::supervisor::{Event, Notice, Severity};

fn lose(cluster: &mut Cluster) -> Vec<String> {
    cluster.tell(Event::GuardLost { how: "has ended (signal 9)".to_owned() })
}

#[test]
fn the_first_loss_is_made_good_at_once_and_said() {
    let mut cluster = Cluster::of(2);
    assert_eq!(lose(&mut cluster), ["start guard"]);
    let said: Vec<&Notice> =
        cluster.notices.iter().filter(|notice| matches!(notice, Notice::GuardLost(_))).collect();
    assert_eq!(said[0].to_string(), "the guard has ended (signal 9); starting another in 0 ms");
    assert_eq!((said.len(), said[0].severity()), (1, Severity::Warning));
}

#[test]
fn losses_in_a_row_wait_longer_and_longer() {
    let mut cluster = Cluster::of(1);
    for delay in [0, 100, 200, 400] {
        let at_once = lose(&mut cluster);
        if delay > 0 {
            assert!(at_once.is_empty(), "{at_once:?}");
            assert!(cluster.pass(delay - 1).is_empty());
            assert_eq!(cluster.pass(1), ["start guard"]);
        }
    }
    assert!(cluster.pass(60_001).is_empty());
    assert_eq!(lose(&mut cluster), ["start guard"], "after a minute the series starts anew");
}

#[test]
fn a_shutdown_is_guarded_to_its_end() {
    let mut cluster = Cluster::of(1);
    cluster.ask_shutdown(1);
    assert_eq!(lose(&mut cluster), ["start guard"]);
    cluster.exits(1);
    assert!(lose(&mut cluster).is_empty());
}
