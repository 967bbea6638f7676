//! Looks at things of which there are news: at once, never twice at a time, and less and less often.

use std::time::Duration;

use crate::supervisor::{LookUse, Looks, Moment};

fn at(milliseconds: u64) -> Moment {
    Moment(Duration::from_millis(milliseconds))
}

#[test]
fn news_are_looked_into_at_once_and_once() {
    let mut looks = Looks::new();
    assert_eq!((looks.start(at(0)), looks.next_deadline()), (None, None));
    looks.note(1, at(1000));
    looks.note(1, at(1001));
    looks.note(2, at(1002));
    assert_eq!(looks.next_deadline(), Some(at(1000)));
    assert_eq!((looks.start(at(1002)), looks.start(at(1002))), (Some(1), Some(2)));
    assert_eq!((looks.start(at(9999)), looks.next_deadline()), (None, None), "no timer while it is idle");
    looks.finish(1, at(1010), LookUse::Nothing);
    assert_eq!(looks.next_deadline(), None);
    looks.note(1, at(1020));
    assert_eq!((looks.start(at(1020)), looks.next_deadline()), (None, Some(at(1060))));
    looks.forget(1);
    assert_eq!((looks.start(at(1060)), looks.next_deadline()), (None, None));
}

#[test]
fn whoever_breaks_it_again_and_again_makes_it_slower_up_to_a_limit() {
    let mut looks = Looks::new();
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        looks.note((), now);
        let due = looks.next_deadline().unwrap();
        pauses.push((due - now).as_millis());
        now = due;
        assert_eq!(looks.start(now), Some(()));
        looks.note((), now);
        looks.finish((), now, LookUse::Mended);
    }
    assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1600, 2000]);
    assert_eq!(looks.start(now + Duration::from_secs(2)), Some(()), "there were news during the last");
    looks.finish((), now, LookUse::Nothing);
    looks.note((), now + Duration::from_secs(60));
    assert_eq!(looks.start(now + Duration::from_secs(60)), Some(()));
    looks.finish((), now, LookUse::Mended);
    looks.note((), now);
    assert_eq!(looks.next_deadline(), Some(now + Duration::from_millis(50)), "forgiven");
}
