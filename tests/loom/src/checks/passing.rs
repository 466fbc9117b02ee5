//! A lease that is passed on: it reaches the next task, or is recalled.

use std::sync::Arc;

use loom::thread;

use super::alone::Alone;
use super::{TTL, World, checks, explore};
use crate::clock::{self, Moment};
use crate::engine::hold::{Hold, Step};

checks![
    a_lease_on_its_way_is_received_or_recalled_but_not_both,
    a_lease_that_was_recalled_is_not_sent_to_another_task,
    a_lease_is_released_or_received_once,
];

/// A hold whose lease is on its way, at the moment when it is to be recalled.
fn overdue() -> Arc<Hold> {
    let hold = World::new().passable_hold();
    assert!(hold.close_to_pass().allowance.is_some());
    clock::advance(TTL / 100);
    hold
}

fn is_recalled(hold: &Hold) -> bool {
    matches!(hold.step(&Moment::now()), Step::Recall)
}

fn a_lease_on_its_way_is_received_or_recalled_but_not_both() {
    explore(|| {
        let hold = overdue();
        let receives = {
            let hold = Arc::clone(&hold);
            thread::spawn(move || hold.receive())
        };
        let is_recalled = is_recalled(&hold);
        assert_ne!(receives.join().unwrap(), is_recalled);
    });
}

fn a_lease_that_was_recalled_is_not_sent_to_another_task() {
    explore(|| {
        let hold = overdue();
        let sends = {
            let hold = Arc::clone(&hold);
            thread::spawn(move || hold.send_off(clock::instant() + TTL))
        };
        let is_recalled = is_recalled(&hold);
        assert_ne!(sends.join().unwrap(), is_recalled);
    });
}

/// By the task that gets it, and by one that has given up.
fn a_lease_is_released_or_received_once() {
    explore(|| {
        let (hold, lease) = (overdue(), Alone::new());
        let [one, other] = [(); 2].map(|()| {
            let (hold, lease) = (Arc::clone(&hold), lease.clone());
            thread::spawn(move || {
                let has_it = hold.receive();
                if has_it {
                    lease.touch();
                }
                has_it
            })
        });
        assert_ne!(one.join().unwrap(), other.join().unwrap());
    });
}
