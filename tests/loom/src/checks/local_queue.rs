//! The local queue: one task at the front, and a turn that is never lost.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::alone::Alone;
use super::{KEY, World, checks, explore};
use crate::clock;
use crate::engine::local_queue::{Joined, News, Next};
use crate::engine::{CallKind, Engine, enter};
use crate::error::{BackendError, HeldBy, LockError};
use crate::key::LockKey;
use crate::options::{LockOptions, Wait};
use crate::sync::{block_on, oneshot};

checks![
    an_answer_reaches_those_whose_time_is_up,
    a_failure_reaches_those_whose_time_is_up,
    a_turn_passes_a_waiter_that_leaves,
    tasks_that_come_and_go_are_at_the_front_one_at_a_time,
];

fn join(engine: &Engine) -> Joined {
    engine.queues.enter(0, &LockKey::from(KEY), None)
}

fn behind(engine: &Engine) -> oneshot::Receiver<Next> {
    match join(engine) {
        Joined::Behind(turn) => turn,
        Joined::Front(_) => panic!("somebody is at the front"),
    }
}

fn is_occupied(engine: &Engine) -> bool {
    engine.queues.is_occupied(0, &LockKey::from(KEY))
}

fn a_turn_passes_a_waiter_that_leaves() {
    explore(|| {
        let world = World::new();
        let engine = &world.engine;
        let alone = Alone::new();
        let (front, left, last) = (world.front(), behind(engine), behind(engine));
        let leaves = thread::spawn(move || drop(left));
        let waits = {
            let alone = alone.clone();
            thread::spawn(move || {
                let turn = block_on(last).unwrap();
                alone.touch();
                drop(turn);
            })
        };
        alone.touch();
        drop(front);
        come_and_go(engine, &alone, true);
        leaves.join().unwrap();
        waits.join().unwrap();
        assert!(!is_occupied(engine));
    });
}

fn tasks_that_come_and_go_are_at_the_front_one_at_a_time() {
    explore(|| {
        let engine = World::new().engine;
        let alone = Alone::new();
        let others = [false, true].map(|waits| {
            let (engine, alone) = (Arc::clone(&engine), alone.clone());
            thread::spawn(move || come_and_go(&engine, &alone, waits))
        });
        come_and_go(&engine, &alone, true);
        for other in others {
            other.join().unwrap();
        }
        assert!(!is_occupied(&engine));
    });
}

/// Enters the queue, and leaves it again: after its turn, or at once if it would have to wait and does not.
fn come_and_go(engine: &Engine, alone: &Alone, waits: bool) {
    let turn = match join(engine) {
        Joined::Front(turn) => turn,
        Joined::Behind(next) if waits => block_on(next).unwrap().into_turn().unwrap(),
        Joined::Behind(_) => return,
    };
    alone.touch();
    drop(turn);
}

fn an_answer_reaches_those_whose_time_is_up() {
    explore(|| {
        let error = told(News::Busy);
        assert!(matches!(error, LockError::Busy { holder: HeldBy::ThisProcess, .. }), "{error}");
    });
}

fn a_failure_reaches_those_whose_time_is_up() {
    explore(|| {
        let error = told(News::Failed(BackendError::transient("down")));
        assert!(matches!(error, LockError::Backend { .. }), "{error}");
    });
}

/// What a call that does not wait is told while the task before it gets this answer of the store. The front does not
/// become free, so only the answer can end the call.
fn told(news: News) -> LockError {
    let world = World::new();
    let front = world.front();
    let asks = thread::spawn(move || {
        front.note_request(clock::instant(), false);
        front.note_answer(news);
        front
    });
    let options = LockOptions { wait: Some(Wait::UpTo(Duration::ZERO)), ..LockOptions::DEFAULT };
    let request = world.request(&options);
    let error = block_on(enter(&world.engine, &request, CallKind::Bare)).unwrap_err();
    drop(asks.join().unwrap());
    error
}
