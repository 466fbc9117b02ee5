//! The watchdog's task: it never sleeps longer than until the first of its holds is due.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use loom::thread;

use super::{KEY, UNRENEWED, World, checks, explore};
use crate::clock;
use crate::engine::Ending;
use crate::engine::hold::Hold;
use crate::engine::local_queue::{Joined, Turn};
use crate::engine::watchdog::Watchdog;
use crate::error::LostReason;
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::sync::{block_on, oneshot};

checks![
    a_hold_is_attended_to_whenever_it_comes,
    a_hold_that_is_due_before_the_others_is_attended_to_in_time,
    a_hold_in_the_place_of_another_is_attended_to_in_time,
    a_hold_does_not_outlive_its_watchdog,
];

const SOON: Duration = Duration::from_secs(10);

fn a_hold_is_attended_to_whenever_it_comes() {
    explore(|| {
        let world = World::new();
        let running = Running::start(&world.watchdog);
        let (_hold, ended) = until(&world, SOON);
        clock::advance(SOON);
        drop(block_on(ended).unwrap());
        running.stop();
    });
}

fn a_hold_that_is_due_before_the_others_is_attended_to_in_time() {
    explore(|| {
        let world = World::new();
        let later = world.hold(&limited(SOON * 2), None);
        let running = Running::start(&world.watchdog);
        let (_hold, ended) = until(&world, SOON);
        clock::advance(SOON);
        drop(block_on(ended).unwrap());
        drop(later);
        running.stop();
    });
}

/// While the watchdog looks at a hold that is almost due, that one is released, and the next one gets its place in the
/// schedule.
fn a_hold_in_the_place_of_another_is_attended_to_in_time() {
    explore(|| {
        let world = World::new();
        let released = world.hold(&limited(Duration::from_millis(40)), None);
        let running = Running::start(&world.watchdog);
        drop(released.close());
        assert!(released.place().is_none());
        let (_hold, ended) = until(&world, Duration::from_millis(20));
        clock::advance(Duration::from_millis(30));
        drop(block_on(ended).unwrap());
        running.stop();
    });
}

fn a_hold_does_not_outlive_its_watchdog() {
    explore(|| {
        let world = World::new();
        let before = world.hold(&UNRENEWED, None);
        let task = Box::pin(world.watchdog.task());
        let runtime_ends = thread::spawn(move || drop(task));
        let meanwhile = world.hold(&UNRENEWED, None);
        for hold in [before, meanwhile] {
            assert_eq!(block_on(hold.ended()), Ending::Lost(LostReason::Unattended));
        }
        runtime_ends.join().unwrap();
    });
}

/// The options of a hold that ends after this time.
fn limited(max_hold: Duration) -> LockOptions {
    LockOptions { max_hold: Some(max_hold), ..UNRENEWED }
}

/// A hold that ends after this time, and the turn that is passed on then. Only the watchdog looks at the hold.
fn until(world: &World, max_hold: Duration) -> (Arc<Hold>, oneshot::Receiver<Turn>) {
    let turn = world.front();
    let Joined::Behind(next) = world.engine.queues.enter(0, &LockKey::from(KEY)) else {
        panic!("the hold has the turn");
    };
    (world.hold(&limited(max_hold), Some(turn)), next)
}

/// The watchdog's task on a thread of its own.
struct Running {
    thread: thread::JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Running {
    fn start(watchdog: &Arc<Watchdog>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let mut task = Box::pin(watchdog.task());
        let thread = thread::spawn(move || {
            block_on(poll_fn(|cx| match Pin::new(&mut stopped).poll(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => task.as_mut().poll(cx),
            }));
        });
        Self { thread, stop }
    }

    fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}
