//! Shared locks, permits, fairness, longer holds and asserted locks on the memory backend. Time is
//! paused, so the assertions are exact.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dlock_runtime::backend::{Attempt, Backend, Claim, Memory, Release};
use dlock_runtime::testing::assume_locked;
use dlock_runtime::{LockError, LockGuard, Mode, Registry, Wait, assert_locked, distributed_lock};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, advance, sleep};

fn registry() -> Registry {
    Registry::builder().backend("memory", Memory::new()).build().expect("a registry")
}

static INSIDE: AtomicU32 = AtomicU32::new(0);
static MOST: AtomicU32 = AtomicU32::new(0);

async fn be_inside() {
    let now = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(now, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

#[distributed_lock(key = "printer", permits = 3)]
async fn print() -> Result<(), LockError> {
    be_inside().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn permits_bound_how_many_are_inside() {
    let registry = registry();
    let began = Instant::now();
    let all = join_all((0..7).map(|_| registry.scope(print()))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    assert_eq!(began.elapsed(), Duration::from_secs(3), "seven in threes");
}

#[distributed_lock(key = "catalogue:<shop>", mode = "shared")]
async fn browse(shop: u32) -> Result<u32, LockError> {
    sleep(Duration::from_secs(1)).await;
    Ok(shop)
}

#[distributed_lock(key = "catalogue:<shop>", wait = "10s")]
async fn rewrite(shop: u32) -> Result<u32, LockError> {
    sleep(Duration::from_secs(1)).await;
    Ok(shop)
}

#[tokio::test(start_paused = true)]
async fn readers_run_concurrently_and_a_writer_alone() {
    let registry = registry();
    let began = Instant::now();
    let (first, second) = tokio::join!(registry.scope(browse(1)), registry.scope(browse(1)));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    let began = Instant::now();
    let (read, written) = tokio::join!(registry.scope(browse(1)), registry.scope(rewrite(1)));
    assert!(read.is_ok() && written.is_ok());
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[distributed_lock(key = "catalogue:<shop>", mode = "shared")]
async fn reads_and_then_writes(shop: u32) -> Result<u32, LockError> {
    rewrite(shop).await
}

#[distributed_lock(key = "catalogue:<shop>")]
async fn writes_and_then_reads(shop: u32) -> Result<u32, LockError> {
    browse(shop).await
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_writes_inside_fails_at_once() {
    let registry = registry();
    let began = Instant::now();
    let answer = registry.scope(reads_and_then_writes(1)).await;
    let error = answer.expect_err("it would deadlock with itself");
    assert!(matches!(error, LockError::Upgrade { .. }), "{error:?}");
    assert!(!error.is_transient() && !error.is_busy());
    assert!(
        error.hint().is_some_and(|hint| hint.contains("exclusively from the start")),
        "{error:?}"
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    registry.scope(writes_and_then_reads(1)).await.expect("a writer may read");
}

#[distributed_lock(key = "queue", fair = true, wait = "1m")]
async fn in_turn(number: u32, order: &std::sync::Mutex<Vec<u32>>) -> Result<(), LockError> {
    order.lock().expect("no panic").push(number);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn fair_waiters_of_two_processes_are_served_in_order() {
    let store = Memory::new();
    let process = || {
        let registry = Registry::builder().backend("memory", store.clone());
        registry.build().expect("a registry")
    };
    let processes = [process(), process()];
    let held = processes[0].lock("queue").acquire().await.expect("free");
    let order = std::sync::Mutex::default();
    let mut waiters: Vec<_> = Vec::new();
    for number in 0..6 {
        let registry = &processes[number as usize % 2];
        let mut waiter = Box::pin(registry.scope(in_turn(number, &order)));
        assert!((&mut waiter).now_or_never().is_none());
        waiters.push(waiter);
    }
    held.release().await.expect("held to the end");
    assert!(join_all(waiters).await.iter().all(Result::is_ok));
    assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3, 4, 5]);
}

/// A dead waiter is passed when it is first in the queue and has not polled the store for 400 ms.
#[tokio::test(start_paused = true)]
async fn a_dead_waiter_costs_less_than_half_a_second() {
    let store = Memory::new();
    let registry = Registry::builder().backend("memory", store.clone()).build();
    let registry = registry.expect("a registry");
    let held = registry.lock("queue").acquire().await.expect("free");
    let dead = Claim::new("queue".into(), Duration::from_secs(30));
    let dead = dead.with_fair(true).with_wait_left(Duration::from_mins(5));
    let answer = store.try_acquire(&dead).await.expect("memory answers");
    assert!(matches!(answer, Attempt::Busy { queued: true, .. }), "{answer:?}");
    let waiter = tokio::spawn(registry.lock("queue").fair(true).wait(Wait::Forever).acquire());
    tokio::task::yield_now().await;
    let began = Instant::now();
    held.release().await.expect("held to the end");
    let next = waiter.await.expect("no panic").expect("the lock");
    let took = began.elapsed();
    assert!(took <= Duration::from_millis(450), "{took:?}");
    assert!(took >= Duration::from_millis(350), "the dead waiter was not waited for: {took:?}");
    next.release().await.expect("held to the end");
}

/// A waiter that was only paused returns to its queue position.
#[tokio::test(start_paused = true)]
async fn a_paused_waiter_keeps_its_queue_position() {
    let store = Memory::new();
    let long = Duration::from_secs(30);
    let claim = || Claim::new("queue".into(), long).with_fair(true).with_wait_left(long);
    let (holder, away, second) = (Claim::new("queue".into(), long), claim(), claim());
    let tries = async |claim: &Claim| {
        let answer = store.try_acquire(claim).await.expect("memory answers");
        matches!(answer, Attempt::Granted { .. })
    };
    assert!(tries(&holder).await);
    assert!(!tries(&away).await && !tries(&second).await);
    advance(Duration::from_secs(1)).await;
    assert!(!tries(&second).await, "the key is held");
    assert!(!tries(&away).await, "the key is held");
    store.release(&holder, Release::default()).await.expect("memory answers");
    assert!(!tries(&second).await, "the first waiter has returned");
    assert!(tries(&away).await);
}

#[distributed_lock(key = "report", ttl = "10s", max_hold = "20s", guard = lock)]
async fn extends(by: Duration, work: Duration) -> Result<(), LockError> {
    sleep(Duration::from_secs(15)).await;
    lock.extend(by).await?;
    sleep(work).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_extended_hold_lasts_as_long_as_requested() {
    let registry = registry();
    let (by, work) = (Duration::from_secs(30), Duration::from_secs(29));
    registry.scope(extends(by, work)).await.expect("44 s of 45 s");
    let answer = registry.scope(extends(by, Duration::from_secs(31))).await;
    assert!(matches!(answer, Err(LockError::HeldTooLong { .. })), "{answer:?}");
}

async fn not_renewed(registry: &Registry) -> LockGuard {
    let lock = registry.lock("k").ttl(Duration::from_secs(10)).renew(false);
    lock.acquire().await.expect("free")
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_can_be_extended() {
    let registry = registry();
    let guard = not_renewed(&registry).await;
    sleep(Duration::from_secs(9)).await;
    guard.extend(Duration::from_mins(1)).await.expect("still held");
    sleep(Duration::from_mins(1)).await;
    assert!(guard.is_held());
    // Then it expires within a ttl, as if it had been acquired at that time.
    sleep(Duration::from_secs(11)).await;
    assert!(!guard.is_held());
    let error = guard.extend(Duration::from_mins(1)).await.expect_err("it has ended");
    assert!(error.is_lost(), "{error:?}");
}

fn set_stock(id: u64) {
    assert_locked!("product:<id>");
}

fn read_stock(id: u64) {
    assert_locked!("product:<id>", mode = "shared");
}

#[distributed_lock(key = "product:<id>")]
async fn sell(id: u64, other: u64) -> Result<(), LockError> {
    sleep(Duration::from_millis(1)).await;
    set_stock(other);
    read_stock(other);
    Ok(())
}

fn panics(run: impl FnOnce()) -> Option<String> {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err()?;
    panic.downcast_ref::<String>().cloned()
}

#[tokio::test(start_paused = true)]
async fn assert_locked_counts_only_locks_of_the_same_task() {
    let registry = registry();
    registry.scope(sell(7, 7)).await.expect("the lock");
    let message = panics(|| set_stock(7)).expect("the lock is not held");
    assert!(message.contains("`product:7` is not locked exclusively by this task"), "{message}");

    let another = std::panic::AssertUnwindSafe(registry.scope(sell(7, 8))).catch_unwind().await;
    assert!(another.is_err(), "another product's lock was accepted");

    let shared = registry.lock("product:7").mode(Mode::Shared);
    let body = async {
        read_stock(7);
        panics(|| set_stock(7))
    };
    let message = shared.run(body).await.expect("the lock");
    assert!(
        message.is_some_and(|message| message.contains("exclusively")),
        "a reader's lock was accepted for a write"
    );

    let two = NonZeroU32::MIN.saturating_add(1);
    let counted = async { panics(|| set_stock(7)) };
    let message = registry.lock("product:7").permits(two).run(counted).await.expect("the lock");
    assert!(message.is_some(), "one of two permits was accepted for a write");

    let spawned = registry
        .lock("product:7")
        .run(async { tokio::spawn(async { panics(|| set_stock(7)) }).await.expect("caught") });
    assert!(spawned.await.expect("the lock").is_some(), "a spawned task inherited the lock");
}

#[tokio::test(start_paused = true)]
async fn assume_locked_satisfies_assert_locked() {
    assume_locked(["product:7"], async {
        set_stock(7);
        assert!(panics(|| set_stock(8)).is_some());
        assume_locked(["product:8"], async {
            set_stock(7);
            set_stock(8);
        })
        .await;
    })
    .await;
    assert!(panics(|| set_stock(7)).is_some());
}

struct Shelf {
    id: u64,
}

impl Shelf {
    #[distributed_lock(key = "shelf:<self.id>")]
    async fn fill(&self) -> Result<(), LockError> {
        self.put();
        Ok(())
    }

    fn put(&self) {
        assert_locked!("shelf:<self.id>");
        assert_locked!(format!("shelf:{}", self.id));
    }
}

#[tokio::test(start_paused = true)]
async fn an_asserted_key_may_use_a_field_or_be_an_expression() {
    registry().scope(Shelf { id: 3 }.fill()).await.expect("the lock");
}
