//! Nested calls: one that is kept beyond the body that it entered under learns that the body has ended.

use std::pin::pin;

use loom::thread;

use super::{UNRENEWED, World, checks, explore};
use crate::engine::{CallKind, Ending, enter, run_guarded};
use crate::error::LostReason;
use crate::guard::LockGuard;
use crate::options::{LockOptions, OnLost};
use crate::sync::{block_on, oneshot};

checks![a_nested_call_learns_that_its_body_has_ended];

/// The body that ends is nested itself, so that nothing is released then that could wake the other.
fn a_nested_call_learns_that_its_body_has_ended() {
    explore(|| {
        let world = World::new();
        let lease = LockGuard::leased(world.hold(&UNRENEWED, None));
        let (keep, kept) = oneshot::channel();
        let (over, is_over) = oneshot::channel::<()>();
        let keeps = thread::spawn(move || {
            let nested: LockGuard = block_on(kept).unwrap();
            assert_eq!(block_on(nested.ended()), Ending::Lost(LostReason::OuterClosed));
            assert!(nested.check().is_err());
            drop(nested);
            drop(over);
        });
        block_on(run(lease, async {
            let inner = nested(&world).await;
            run(inner, async { keep.send(nested(&world).await).unwrap() }).await;
            let _ = is_over.await;
        }));
        keeps.join().unwrap();
    });
}

async fn nested(world: &World) -> LockGuard {
    let request = world.request(&LockOptions::DEFAULT);
    enter(&world.engine, &request, CallKind::Body).await.unwrap()
}

/// Runs a body, and releases the lock. The store does not know the lock, which does not matter here.
async fn run(guard: LockGuard, body: impl Future<Output = ()>) {
    let _ = run_guarded([guard], OnLost::Cancel, pin!(Some(body)), |()| false).await;
}
