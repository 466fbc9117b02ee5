//! A release and the renewals: from the moment that a hold was closed, no renewal starts.

use std::sync::Arc;

use loom::thread;

use super::alone::Alone;
use super::exclusive::Exclusive;
use super::{RENEWAL_IS_DUE, TTL, UNRENEWED, World, checks, explore};
use crate::clock::{self, Moment};
use crate::engine::Ending;
use crate::engine::hold::{Hold, InFlight, Renewed, Step};
use crate::error::LostReason;
use crate::options::LockOptions;
use crate::sync::block_on;

checks![
    no_renewal_is_on_its_way_beside_a_release,
    a_release_knows_of_a_renewal_that_got_no_answer,
    those_who_refer_to_a_closed_hold_learn_of_it,
    an_extension_renews_after_the_renewal_in_flight,
    an_extension_ends_with_its_hold,
];

fn no_renewal_is_on_its_way_beside_a_release() {
    explore(|| {
        let (hold, wire) = due();
        let watches = {
            let (hold, wire) = (Arc::clone(&hold), wire.clone());
            thread::spawn(move || {
                renew_if_due(&hold, &wire);
                clock::advance(RENEWAL_IS_DUE);
                renew_if_due(&hold, &wire);
            })
        };
        release(&hold, &wire);
        watches.join().unwrap();
        assert!(!hold.release_now().late_acquire);
    });
}

fn renew_if_due(hold: &Arc<Hold>, wire: &Alone) {
    let sent = Moment::now();
    if let Step::Renew = hold.step(&sent) {
        let renewal = InFlight::new(Arc::clone(hold));
        wire.touch();
        renewal.settle(sent, Renewed::For(TTL), &Moment::now());
    }
}

fn release(hold: &Arc<Hold>, wire: &Alone) {
    if hold.close().is_renewing {
        // The clock stands still: only the end of the renewal ends this.
        block_on(hold.renewal_finished(TTL * 100));
    }
    wire.touch();
}

fn a_release_knows_of_a_renewal_that_got_no_answer() {
    explore(|| {
        let (hold, _) = due();
        assert!(matches!(hold.step(&Moment::now()), Step::Renew));
        let renewal = InFlight::new(Arc::clone(&hold));
        let runtime_ends = thread::spawn(move || drop(renewal));
        let closing = hold.close();
        let how = if closing.is_renewing {
            block_on(hold.renewal_finished(TTL));
            hold.release_now()
        } else {
            hold.release_at_once(&closing)
        };
        assert!(how.late_acquire);
        runtime_ends.join().unwrap();
    });
}

fn those_who_refer_to_a_closed_hold_learn_of_it() {
    explore(|| {
        let hold = World::new().hold(&UNRENEWED, None);
        let view = Arc::clone(&hold);
        let looks = thread::spawn(move || {
            assert_eq!(block_on(view.ended()), Ending::Lost(LostReason::OuterClosed));
            assert!(view.check().is_err());
        });
        drop(hold.close());
        assert!(hold.check().is_err());
        looks.join().unwrap();
    });
}

fn an_extension_renews_after_the_renewal_in_flight() {
    explore(|| {
        let store = Exclusive::default();
        let (hold, renewal) = renewing(store.clone());
        let answers = thread::spawn(move || {
            renewal.settle(Moment::now(), Renewed::For(TTL), &Moment::now());
        });
        block_on(hold.renew_now());
        assert_eq!(store.renewals(), 1);
        answers.join().unwrap();
    });
}

fn an_extension_ends_with_its_hold() {
    explore(|| {
        let store = Exclusive::default();
        let (hold, renewal) = renewing(store.clone());
        let extends = {
            let hold = Arc::clone(&hold);
            thread::spawn(move || block_on(hold.renew_now()))
        };
        drop(hold.close());
        renewal.settle(Moment::now(), Renewed::For(TTL), &Moment::now());
        extends.join().unwrap();
        assert_eq!(store.renewals(), 0);
    });
}

/// A hold with a renewal in flight.
fn renewing(store: Exclusive) -> (Arc<Hold>, InFlight) {
    let hold = World::with(store).hold(&LockOptions::DEFAULT, None);
    clock::advance(RENEWAL_IS_DUE);
    assert!(matches!(hold.step(&Moment::now()), Step::Renew));
    (Arc::clone(&hold), InFlight::new(hold))
}

/// A hold whose renewal is due, and the way to the store, on which there is one request at a time.
fn due() -> (Arc<Hold>, Alone) {
    let hold = World::new().hold(&LockOptions::DEFAULT, None);
    clock::advance(RENEWAL_IS_DUE);
    (hold, Alone::new())
}
