//! A lock-delay: after a hold that ended before its release, nobody else gets the lock for a while.

use super::*;

const TTL: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(5);

/// How long another process waits for the lock from now on.
async fn until_free(other: &Registry) -> Duration {
    let began = Instant::now();
    let lock = other.lock("k").wait(Duration::from_mins(1));
    lock.acquire().await.expect("free in time").release().await.expect("held");
    began.elapsed()
}

fn about(found: Duration, expected: Duration) -> bool {
    found.abs_diff(expected) < SECOND / 4
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_the_lock_stays_locked_for_its_grace() {
    let store = Memory::new();
    let faulty = Intercepted::new(store.clone());
    let (locks, other) = (on(faulty.clone()), on(store));
    let began = Instant::now();
    let run = locks.lock("k").ttl(TTL).grace(GRACE).run(async {
        faulty.fail(Call::Renew);
        pending::<()>().await;
    });
    assert!(matches!(run.await, Err(LockError::Lost { .. })));
    assert!(about(began.elapsed(), TTL), "the proof ends with the ttl: {:?}", began.elapsed());
    let waited = until_free(&other).await;
    assert!(about(waited, GRACE), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_lock_stays_locked_for_its_grace() {
    let store = Memory::new();
    let faulty = Intercepted::new(store.clone());
    let (locks, other) = (on(faulty.clone()), on(store));
    let guard = locks.lock("k").ttl(TTL).grace(GRACE).acquire().await.expect("free");
    // The process is gone: it neither renews nor releases.
    for call in [Call::Renew, Call::Release] {
        faulty.fail(call);
    }
    drop(guard);
    let waited = until_free(&other).await;
    assert!(about(waited, TTL + GRACE), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_frees_the_lock_at_once() {
    let store = Memory::new();
    let (locks, other) = (on(store.clone()), on(store));
    let lock = || locks.lock("k").ttl(TTL).grace(GRACE);
    lock().run(sleep(SECOND)).await.expect("free");
    assert_eq!(until_free(&other).await, Duration::ZERO);
    drop(lock().acquire().await.expect("free"));
    tokio::task::yield_now().await;
    assert!(about(until_free(&other).await, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_lease_with_a_grace_is_renewed_as_one_without() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard =
        locks.lock("k").ttl(TTL).grace(Duration::from_mins(1)).acquire().await.expect("free");
    assert!(guard.remaining() <= TTL, "{:?}", guard.remaining());
    sleep(SECOND * 20).await;
    assert!(guard.is_held() && guard.remaining() <= TTL, "{:?}", guard.remaining());
    assert!(store.count(Call::Renew) >= 20, "{}", store.count(Call::Renew));
    guard.release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn what_max_hold_has_stopped_keeps_the_lock_for_its_grace() {
    let store = Memory::new();
    let (locks, other) = (on(store.clone()), on(store));
    let run = locks.lock("k").ttl(TTL).grace(GRACE).max_hold(SECOND).run(pending::<()>());
    assert!(matches!(run.await, Err(LockError::HeldTooLong { .. })));
    let waited = until_free(&other).await;
    assert!(about(waited, GRACE), "{waited:?}");
}

#[distributed_lock(key = "k", ttl = "2s", grace = "5s", backend = "store")]
async fn with_grace(faulty: &Intercepted) -> Result<(), LockError> {
    faulty.fail(Call::Renew);
    pending().await
}

#[tokio::test(start_paused = true)]
async fn the_attribute_has_a_grace_too() {
    let store = Memory::new();
    let faulty = Intercepted::new(store.clone());
    let (locks, other) = (on(faulty.clone()), on(store));
    locks.scope(with_grace(&faulty)).await.expect_err("lost");
    let waited = until_free(&other).await;
    assert!(about(waited, GRACE), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_grace_that_the_store_cannot_keep_is_refused() {
    let locks = on(Memory::new());
    for grace in [Duration::MAX, Duration::from_hours(25)] {
        let refused = locks.lock("k").grace(grace).acquire().await;
        assert!(matches!(refused, Err(LockError::Unsupported { .. })), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_or_panics_keeps_the_lock_for_its_grace() {
    let store = Memory::new();
    let (locks, other) = (on(store.clone()), on(store));
    let lock = || locks.lock("k").ttl(TTL).grace(GRACE);
    timeout(SECOND, lock().run(pending::<()>())).await.expect_err("dropped");
    let waited = until_free(&other).await;
    assert!(about(waited, GRACE), "{waited:?}");
    let panics = tokio::spawn(lock().run(async { panic!("an expected panic of a body") }));
    panics.await.expect_err("it panics");
    let waited = until_free(&other).await;
    assert!(about(waited, GRACE), "{waited:?}");
}

/// A long grace does not shorten the proof.
#[tokio::test(start_paused = true)]
async fn a_grace_may_be_much_longer_than_the_ttl() {
    let locks = on(Memory::new());
    let with = locks.lock("with").ttl(SECOND).grace(Duration::from_hours(1)).acquire().await;
    let without = locks.lock("without").ttl(SECOND).acquire().await;
    let (with, without) = (with.expect("free"), without.expect("free"));
    assert!(with.remaining().abs_diff(without.remaining()) < SECOND / 100, "{with:?} {without:?}");
}
