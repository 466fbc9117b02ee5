//! A hold and its end: whoever has learnt of the end is never told again that the hold is fine.

use std::sync::Arc;

use loom::thread;

use super::{RENEWAL_IS_DUE, TTL, UNRENEWED, World, checks, explore};
use crate::clock::{self, Moment};
use crate::engine::Ending;
use crate::engine::hold::{Hold, InFlight, Renewed, Step};
use crate::engine::local_queue::Joined;
use crate::error::LostReason;
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::sync::block_on;

checks![
    an_end_wakes_the_body,
    no_check_is_fine_after_the_notice_of_an_end,
    no_check_is_fine_once_the_next_task_has_its_turn,
    an_answer_that_is_late_does_not_revive_a_hold,
    a_renewal_that_is_refused_wakes_the_body,
];

fn an_end_wakes_the_body() {
    explore(|| {
        let hold = World::new().hold(&UNRENEWED, None);
        let ends = on_a_thread(&hold, |hold| assert!(!hold.end_unattended()));
        assert_eq!(block_on(hold.ended()), Ending::Lost(LostReason::Unattended));
        assert!(hold.check().is_err());
        ends.join().unwrap();
    });
}

fn no_check_is_fine_after_the_notice_of_an_end() {
    explore(|| {
        let hold = World::new().hold(&UNRENEWED, None);
        let notice = hold.changed();
        let ends = on_a_thread(&hold, |hold| assert!(!hold.end_unattended()));
        block_on(notice);
        assert!(hold.check().is_err());
        ends.join().unwrap();
    });
}

/// Its turn comes from the end, or from a release at the same time.
fn no_check_is_fine_once_the_next_task_has_its_turn() {
    explore(|| {
        let world = World::new();
        let hold = world.hold(&UNRENEWED, Some(world.front()));
        let Joined::Behind(next) = world.engine.queues.enter(0, &LockKey::from(super::KEY), None)
        else {
            panic!("the hold has the turn");
        };
        let ends = on_a_thread(&hold, |hold| assert!(!hold.end_unattended()));
        let closes = on_a_thread(&hold, |hold| drop(hold.close()));
        let turn = block_on(next).unwrap();
        assert!(hold.check().is_err());
        drop(turn);
        ends.join().unwrap();
        closes.join().unwrap();
    });
}

fn an_answer_that_is_late_does_not_revive_a_hold() {
    explore(|| {
        let (hold, renewal, sent) = renewing();
        let answers = thread::spawn(move || {
            renewal.settle(sent, Renewed::For(TTL), &Moment::now());
        });
        hold.end_unattended();
        assert!(hold.check().is_err());
        answers.join().unwrap();
        assert!(hold.check().is_err());
    });
}

fn a_renewal_that_is_refused_wakes_the_body() {
    explore(|| {
        let (hold, renewal, sent) = renewing();
        let answers = thread::spawn(move || {
            renewal.settle(sent, Renewed::NotHeld, &Moment::now());
        });
        assert_eq!(block_on(hold.ended()), Ending::Lost(LostReason::NotHeld));
        assert!(hold.check().is_err());
        answers.join().unwrap();
    });
}

fn on_a_thread(
    hold: &Arc<Hold>,
    action: impl FnOnce(&Arc<Hold>) + 'static,
) -> thread::JoinHandle<()> {
    let hold = Arc::clone(hold);
    thread::spawn(move || action(&hold))
}

/// A hold with a renewal in flight, and when that was sent.
fn renewing() -> (Arc<Hold>, InFlight, Moment) {
    let hold = World::new().hold(&LockOptions::DEFAULT, None);
    clock::advance(RENEWAL_IS_DUE);
    let sent = Moment::now();
    assert!(matches!(hold.step(&sent), Step::Renew));
    let renewal = InFlight::new(Arc::clone(&hold));
    (hold, renewal, sent)
}
