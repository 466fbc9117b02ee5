//! Whole calls: acquire, hold, release.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use loom::thread;
use tokio::runtime::Builder;

use super::alone::Alone;
use super::{KEY, World, checks, explore_some};
use crate::engine::{CallKind, enter};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::sync::block_on;

checks![
    calls_hold_the_lock_one_at_a_time_and_leave_nothing_behind,
    a_call_that_is_cancelled_leaves_nothing_behind,
];

/// More take a minute.
const INTERRUPTIONS: usize = 3;

fn calls_hold_the_lock_one_at_a_time_and_leave_nothing_behind() {
    explore_some(INTERRUPTIONS, || beside_two_calls(call));
}

fn a_call_that_is_cancelled_leaves_nothing_behind() {
    explore_some(INTERRUPTIONS, || beside_two_calls(cancelled_call));
}

fn beside_two_calls(other: fn(&World, &Alone)) {
    // Each run has its own, so that all of it is gone when the run ends.
    let runtime = Builder::new_current_thread().build().unwrap();
    let entered = runtime.enter();
    let (world, alone) = (World::new(), Alone::new());
    let two = [(); 2].map(|()| {
        let (world, alone) = (world.clone(), alone.clone());
        thread::spawn(move || call(&world, &alone))
    });
    other(&world, &alone);
    for one in two {
        one.join().unwrap();
    }
    // A lease that was passed to a task which gave up is released in the background.
    runtime.block_on(async {
        while !world.engine.background.is_empty() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(world.engine.unfinished(), 0);
    assert!(!world.engine.queues.is_occupied(0, &LockKey::from(KEY)));
    drop(entered);
}

fn call(world: &World, alone: &Alone) {
    let request = world.request(&LockOptions::DEFAULT);
    let guard = block_on(enter(&world.engine, &request, CallKind::Bare)).unwrap();
    alone.touch();
    block_on(guard.release()).unwrap();
}

/// Waits for the lock only until its first await point.
fn cancelled_call(world: &World, alone: &Alone) {
    let request = world.request(&LockOptions::DEFAULT);
    let entering = pin!(enter(&world.engine, &request, CallKind::Bare));
    if let Poll::Ready(guard) = entering.poll(&mut Context::from_waker(Waker::noop())) {
        alone.touch();
        block_on(guard.unwrap().release()).unwrap();
    }
}
