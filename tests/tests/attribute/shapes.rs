//! The attribute on every form of async function that a service may have. Each form excludes a
//! second call with the same key, and locks exactly the key that is written.

#![forbid(unsafe_code)]
#![deny(warnings, clippy::pedantic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry};
use futures_util::future::LocalBoxFuture;

mod arguments;
mod functions;
mod futures;
mod keys;
mod methods;
mod stacked;

/// The registry for the tests in this module.
fn registry() -> Registry {
    let builder = Registry::builder().backend("memory", Memory::new()).default_backend("memory");
    builder.build().expect("a registry")
}

/// Counts how many bodies were inside at the same time.
#[derive(Debug, Default)]
struct Room {
    inside: AtomicUsize,
    most: AtomicUsize,
    visits: AtomicUsize,
}

impl Room {
    async fn visit(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.visits.fetch_add(1, Ordering::SeqCst);
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Runs two calls concurrently. Both must succeed with the expected key, one after the other.
fn assert_exclusive<'a, E: std::fmt::Debug>(
    room: &'a Room,
    key: &'a str,
    one: impl Future<Output = Result<String, E>> + 'a,
    other: impl Future<Output = Result<String, E>> + 'a,
) -> LocalBoxFuture<'a, ()> {
    Box::pin(async move {
        let (one, other) = together(one, other).await;
        assert_eq!(one.expect("the first call"), key);
        assert_eq!(other.expect("the second call"), key);
        assert_eq!(room.visits.load(Ordering::SeqCst), 2, "a body did not run");
        assert_eq!(room.most(), 1, "two bodies ran at once");
    })
}

async fn together<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> (T, T) {
    registry().scope(async { tokio::join!(one, other) }).await
}

#[tokio::test]
async fn without_the_attribute_two_bodies_meet() {
    async fn unlocked(room: &Room) -> Result<(), LockError> {
        room.visit().await;
        Ok(())
    }
    let room = Room::default();
    let (one, other) = together(unlocked(&room), unlocked(&room)).await;
    one.and(other).expect("no lock, no error");
    assert_eq!(room.most(), 2);
}
