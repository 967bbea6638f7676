//! Requests: whose reply is whose.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::requests::{Hearing, Requests, TooBusy};
use super::super::{Moment, RequestNumber, WorkerId};

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);

fn at(milliseconds: u64) -> Moment {
    Moment(Duration::from_millis(milliseconds))
}

fn open(requests: &mut Requests, cmd: &str, workers: &[WorkerId]) -> RequestNumber {
    requests.open(cmd, at(1000), workers.iter().copied()).expect("not too busy")
}

#[test]
fn each_message_is_what_it_is() {
    let mut requests = Requests::new();
    let asked = open(&mut requests, "x", &[A, B]);
    let other = open(&mut requests, "y", &[A]);
    let number = |request: RequestNumber| Some(request.0);
    let table = [
        ("another name", A, Some("z"), None, Hearing::Message),
        ("no name", A, None, None, Hearing::Message),
        ("a stranger's", WorkerId(9), Some("x"), None, Hearing::Message),
        ("a stranger's with the number", WorkerId(9), Some("x"), number(asked), Hearing::Late),
        ("a number that never was", A, Some("x"), Some(77), Hearing::Late),
        ("by name", A, Some("x"), None, Hearing::Reply(asked)),
        ("a second one", A, Some("x"), None, Hearing::Message),
        ("a second one with the number", A, Some("x"), number(asked), Hearing::Late),
        ("by number, whatever the name", A, Some("z"), number(other), Hearing::Reply(other)),
        ("by number, without a name", B, None, number(asked), Hearing::Reply(asked)),
        ("after all is settled", B, Some("x"), None, Hearing::Message),
    ];
    for (what, worker, cmd, number, expected) in table {
        assert_eq!(requests.hear(worker, cmd, number), expected, "{what}");
    }
    assert!(!requests.is_open(asked) && !requests.is_open(other));
    assert_eq!(requests.next_deadline(), None);
}

#[test]
fn a_second_of_the_same_name_is_refused_unless_all_send_the_number() {
    let mut requests = Requests::new();
    let first = open(&mut requests, "x", &[A, B]);
    requests.note_echo(A, "x".into());
    requests.note_echo(B, "other".into());
    assert_eq!(requests.open("x", at(1), [A, B]), Err(TooBusy));
    open(&mut requests, "y", &[A, B]);
    let second = open(&mut requests, "x", &[A]);
    assert_eq!(requests.hear(A, Some("x"), None), Hearing::Message, "it would have sent the number");
    assert_eq!(requests.hear(A, Some("x"), Some(second.0)), Hearing::Reply(second));
    assert_eq!(requests.hear(B, Some("x"), None), Hearing::Reply(first));
    assert_eq!(requests.hear(A, Some("x"), Some(first.0)), Hearing::Reply(first));
    open(&mut requests, "x", &[A, B]);
}

#[test]
fn the_dead_owe_nothing() {
    let mut requests = Requests::new();
    let (x, y) = (open(&mut requests, "x", &[A, B]), open(&mut requests, "y", &[A]));
    assert_eq!(requests.lose(A), [x, y]);
    assert!(requests.is_open(x) && !requests.is_open(y));
    assert_eq!(requests.lose(A), []);
    assert_eq!(requests.lose(B), [x]);
    assert!(!requests.is_open(x));
    let nobody = open(&mut requests, "x", &[]);
    assert!(!requests.is_open(nobody));
}

#[test]
fn time_runs_out_for_each_by_itself() {
    let mut requests = Requests::new();
    let x = requests.open("x", at(10), [A, B]).expect("not too busy");
    let y = requests.open("y", at(5), [A]).expect("not too busy");
    assert_eq!(requests.next_deadline(), Some(at(5)));
    requests.hear(A, Some("x"), None);
    assert_eq!(requests.expire(at(4)), []);
    assert_eq!(requests.expire(at(5)), [(y, BTreeSet::from([A]))]);
    assert_eq!(requests.next_deadline(), Some(at(10)));
    assert_eq!(requests.expire(at(60)), [(x, BTreeSet::from([B]))]);
    assert_eq!(requests.hear(B, Some("x"), Some(x.0)), Hearing::Late);
    assert_eq!(requests.next_deadline(), None);
    let z = open(&mut requests, "x", &[A]);
    requests.forget(z);
    assert_eq!(requests.hear(A, Some("x"), None), Hearing::Message);
}
