//! Annotated functions as a service has them, one for each kind of lock and for each option that changes the protocol.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dlock_runtime::{LockError, LockGuard, LockSet, distributed_lock, sim};

use crate::ledger::{Kind, Ledger, Visit};

/// What a body does.
#[derive(Clone, Debug)]
pub struct Work {
    /// The caller, as the ledger names it.
    pub who: String,
    /// Where it shows.
    pub ledger: Ledger,
    /// How often it waits for something short.
    pub steps: usize,
    /// How long it waits for something long, in the middle.
    pub pause: Duration,
}

impl Work {
    /// Runs as a body. Each time it is polled, it shows in the ledger.
    async fn run(&self, kind: Kind, guards: &[LockGuard]) {
        let visits: Vec<_> =
            guards.iter().map(|guard| self.ledger.enter(&self.who, kind, guard)).collect();
        // A body that goes on after a loss, because its `on_lost` asks for that, claims nothing any more.
        let touch = || {
            for (visit, guard) in visits.iter().zip(guards) {
                if guard.is_held() {
                    visit.touch();
                }
            }
        };
        for step in 0..self.steps {
            sim::step().await;
            touch();
            if step == self.steps / 2 && !self.pause.is_zero() {
                sim::sleep(self.pause).await;
                touch();
            }
        }
    }

    async fn run_alone(&self, kind: Kind, guard: &LockGuard) {
        self.run(kind, std::slice::from_ref(guard)).await;
    }
}

/// The usual lock.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "300ms", wait = "2s", guard = lock)]
pub async fn exclusive(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// A lease that passes from task to task for as long as it may.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "400ms", wait = "2s", handover = "16 in 1s", guard = lock)]
pub async fn passed_on(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// A lease that is never renewed.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "100ms", wait = "500ms", renew = false, guard = lock)]
pub async fn without_renewal(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// A busy lock is no error: the body is skipped.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "1s", wait = "0s", on_busy = "skip", guard = lock)]
pub async fn skipping(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// Waits for nobody.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "300ms", wait = "0s", guard = lock)]
pub async fn trying(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// First come, first served.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "300ms", wait = "3s", fair = true, guard = lock)]
pub async fn fair(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// A reader.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "300ms", wait = "2s", mode = "shared", guard = lock)]
pub async fn shared(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Shared, lock).await;
    Ok(())
}

/// One of two holders.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "pool:<item>", ttl = "300ms", wait = "2s", permits = 2, guard = lock)]
pub async fn permits(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Permits(2), lock).await;
    Ok(())
}

/// Two keys at once.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(
    keys = ["item:<from>", "item:<to>"], ttl = "300ms", wait = "6s", guard = locks
)]
pub async fn set(from: usize, to: usize, work: &Work) -> Result<(), LockError> {
    work.run(Kind::Exclusive, of(locks)).await;
    Ok(())
}

fn of(locks: &LockSet) -> &[LockGuard] {
    locks.holds()
}

/// Ends after its `max_hold`.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(
    key = "item:<item>", ttl = "200ms", wait = "2s", max_hold = "250ms", guard = lock
)]
pub async fn at_most(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// Keeps the key for its `min_hold`.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(
    key = "item:<item>", ttl = "1s", wait = "2s", min_hold = "300ms", guard = lock
)]
pub async fn at_least(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// Goes on after a loss.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(
    key = "item:<item>", ttl = "150ms", wait = "2s", on_lost = "finish", guard = lock
)]
pub async fn finishing(item: usize, work: &Work) -> Result<(), LockError> {
    work.run_alone(Kind::Exclusive, lock).await;
    Ok(())
}

/// The nested call enters under the hold of the outer one, and shows under the same token.
///
/// # Errors
/// Those of the lock.
#[distributed_lock(key = "item:<item>", ttl = "200ms", wait = "2s", guard = lock)]
pub async fn nested(item: usize, work: &Work) -> Result<(), LockError> {
    let visit = work.ledger.enter(&work.who, Kind::Exclusive, lock);
    sim::step().await;
    visit.touch();
    nested_inside(item, work.clone(), Arc::new(visit)).await
}

#[distributed_lock(key = "item:<item>", ttl = "200ms")]
async fn nested_inside(item: usize, work: Work, visit: Arc<Visit>) -> Result<(), LockError> {
    for _ in 0..work.steps {
        sim::step().await;
        visit.touch();
    }
    sim::sleep(work.pause).await;
    visit.touch();
    Ok(())
}

/// A nested call that is carried out of the body around it, and awaited after that body has ended.
///
/// # Errors
/// [`LockError::Lost`], unless the nested call has ended in the meantime.
pub async fn escaping(item: usize, work: &Work) -> Result<(), LockError> {
    let escaped = carried_out(item, work).await?;
    escaped.await
}

type Nested = Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>;

#[distributed_lock(key = "item:<item>", ttl = "200ms", wait = "2s", guard = lock)]
async fn carried_out(item: usize, work: &Work) -> Result<Nested, LockError> {
    let visit = Arc::new(work.ledger.enter(&work.who, Kind::Exclusive, lock));
    let mut nested: Nested = Box::pin(nested_inside(item, work.clone(), visit));
    // Polled once, so that it has entered.
    let mut once = Some(());
    std::future::poll_fn(|cx| match once.take() {
        Some(()) => {
            let done = nested.as_mut().poll(cx).is_ready();
            cx.waker().wake_by_ref();
            if done { Poll::Ready(true) } else { Poll::Pending }
        }
        None => Poll::Ready(false),
    })
    .await
    .then(|| nested = Box::pin(std::future::ready(Ok(()))));
    Ok(nested)
}
