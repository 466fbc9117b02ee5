//! The watchdog's task: it never sleeps longer than until the first of its holds is due.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use loom::thread;

use super::exclusive::Exclusive;
use super::{KEY, RENEWAL_IS_DUE, UNRENEWED, World, checks, explore, explore_some};
use crate::clock;
use crate::engine::hold::Hold;
use crate::engine::local_queue::{Joined, Next};
use crate::engine::watchdog::Watchdog;
use crate::engine::{Ending, release};
use crate::error::LostReason;
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::sync::{block_on, oneshot};

checks![
    a_hold_is_attended_to_whenever_it_comes,
    a_hold_that_is_due_before_the_others_is_attended_to_in_time,
    a_hold_in_the_place_of_another_is_attended_to_in_time,
    a_place_in_the_schedule_is_given_up_once,
    a_hold_does_not_outlive_its_watchdog,
    a_hold_does_not_begin_under_a_watchdog_that_is_gone,
    no_renewal_is_sent_beside_a_release,
];

const SOON: Duration = Duration::from_secs(10);

/// More take minutes.
const INTERRUPTIONS: usize = 5;

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
    explore_some(INTERRUPTIONS, || {
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
    explore_some(INTERRUPTIONS, || {
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

/// While the watchdog finds that a hold is over, that one is released too. Of the next two holds, none may get the
/// other's place.
fn a_place_in_the_schedule_is_given_up_once() {
    explore_some(INTERRUPTIONS - 2, || {
        let world = World::new();
        let over = world.hold(&limited(SOON), None);
        clock::advance(SOON);
        let running = Running::start(&world.watchdog);
        drop(over.close());
        let (_hold, ended) = until(&world, SOON);
        let later = world.hold(&limited(SOON * 2), None);
        clock::advance(SOON);
        drop(block_on(ended).unwrap());
        drop(later);
        running.stop();
    });
}

fn a_hold_does_not_outlive_its_watchdog() {
    explore(|| {
        let world = World::new();
        let hold = world.hold(&UNRENEWED, None);
        let runtime_ends = drop_task(&world);
        assert_eq!(block_on(hold.ended()), Ending::Lost(LostReason::Unattended));
        runtime_ends.join().unwrap();
    });
}

fn a_hold_does_not_begin_under_a_watchdog_that_is_gone() {
    explore(|| {
        let world = World::new();
        let runtime_ends = drop_task(&world);
        let hold = world.hold(&UNRENEWED, None);
        assert_eq!(block_on(hold.ended()), Ending::Lost(LostReason::Unattended));
        runtime_ends.join().unwrap();
    });
}

/// Drops the watchdog's task on a thread, as a runtime does that shuts down.
fn drop_task(world: &World) -> thread::JoinHandle<()> {
    let task = Box::pin(world.watchdog.task());
    thread::spawn(move || drop(task))
}

fn no_renewal_is_sent_beside_a_release() {
    explore_some(INTERRUPTIONS, || {
        let store = Exclusive::default();
        let world = World::with(store.clone());
        let hold = world.hold(&LockOptions::DEFAULT, None);
        clock::advance(RENEWAL_IS_DUE);
        let running = Running::start(&world.watchdog);
        block_on(release(&hold)).unwrap();
        running.stop();
        assert!(!store.was_violated());
    });
}

/// The options of a hold that ends after this time.
fn limited(max_hold: Duration) -> LockOptions {
    LockOptions { max_hold: Some(max_hold), ..UNRENEWED }
}

/// A hold that ends after this time, and the turn that is passed on then. Only the watchdog looks at the hold.
fn until(world: &World, max_hold: Duration) -> (Arc<Hold>, oneshot::Receiver<Next>) {
    let turn = world.front();
    let Joined::Behind(next) = world.engine.queues.enter(0, &LockKey::from(KEY), None) else {
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
