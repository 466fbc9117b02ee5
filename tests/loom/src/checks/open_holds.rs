//! A shutdown that waits for the last hold.

use std::sync::Arc;

use loom::thread;

use super::alone::Alone;
use super::{World, checks, explore};
use crate::engine::hold::Hold;
use crate::sync::block_on;

checks![
    a_shutdown_misses_no_removal_and_sees_what_was_done_before_it,
    a_shutdown_waits_for_holds_that_come_meanwhile,
    a_hold_is_removed_once,
];

fn a_shutdown_misses_no_removal_and_sees_what_was_done_before_it() {
    explore(|| {
        let engine = World::new().engine;
        let done = [Alone::new(), Alone::new()];
        for done in done.clone() {
            engine.open_holds.add();
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                done.touch();
                engine.open_holds.remove();
            });
        }
        block_on(engine.open_holds.none_left());
        done.iter().for_each(Alone::touch);
        assert_eq!(engine.open_holds.len(), 0);
    });
}

fn a_shutdown_waits_for_holds_that_come_meanwhile() {
    explore(|| {
        let engine = World::new().engine;
        engine.open_holds.add();
        let last = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                engine.open_holds.add();
                engine.open_holds.remove();
                engine.open_holds.remove();
            })
        };
        block_on(engine.open_holds.none_left());
        last.join().unwrap();
        // A second shutdown waits for what the first one did not know of.
        engine.open_holds.add();
        let later = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.open_holds.remove())
        };
        block_on(engine.open_holds.none_left());
        later.join().unwrap();
        assert_eq!(engine.open_holds.len(), 0);
    });
}

/// A release and the last reference may be on two threads.
fn a_hold_is_removed_once() {
    explore(|| {
        let world = World::new();
        let hold = world.hold(&super::UNRENEWED, None);
        let other = Arc::clone(&hold);
        let released = thread::spawn(move || {
            other.untrack();
        });
        Hold::untrack(&hold);
        drop(hold);
        released.join().unwrap();
        assert_eq!(world.engine.open_holds.len(), 0);
    });
}
