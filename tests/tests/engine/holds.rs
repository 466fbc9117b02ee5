//! What a hold guarantees while it lasts, while it ends, and afterwards. The tests use the memory
//! backend, mostly with time paused so that the assertions are exact.

#![expect(clippy::async_yields_async, reason = "a task begun under a lock is awaited after it")]

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use dlock_runtime::backend::{Backend, Memory};
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{
    BackendError, HoldState, LockError, LostReason, OnLost, Registry, Wait, distributed_lock,
};
use futures_util::future::{FutureExt, join_all, poll_fn};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, advance, sleep, timeout};

use self::stores::{Fate, Renewals, Unreachable};

mod after_a_loss;
mod batches;
mod children;
mod draining;
mod durations;
mod failures;
mod grace;
mod lock_order;
mod nested;
mod passing;
mod releasing;
mod renewals;
mod sets;
mod stores;

const SECOND: Duration = Duration::from_secs(1);

fn on(store: impl Backend) -> Registry {
    Registry::builder().backend("store", store).build().expect("a registry")
}

fn outer_closed(ended: &Result<(), LockError>) -> bool {
    matches!(ended, Err(LockError::Lost { reason: LostReason::OuterClosed, completed: false, .. }))
}

#[test]
fn backend_errors_can_be_cloned_for_many_callers() {
    let one = BackendError::transient("down").with_source(std::io::Error::other("cable"));
    let other = one.clone();
    assert!(other.is_transient() && other.may_have_been_sent());
    assert_eq!(other.to_string(), "down");
    assert_eq!(std::error::Error::source(&other).expect("kept").to_string(), "cable");
    assert!(!one.clone().not_sent().may_have_been_sent() && one.may_have_been_sent());
}
