use super::*;

static RUNS: AtomicU32 = AtomicU32::new(0);

#[distributed_lock(key = "nightly", wait = "0s", on_busy = "skip")]
async fn nightly() -> Result<Option<u32>, LockError> {
    Ok(Some(RUNS.fetch_add(1, Ordering::SeqCst)))
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_never_a_skipped_job() {
    for store in Unreachable::EACH {
        let locks = on(store);
        let all = join_all((0..10).map(|_| locks.scope(nightly()))).await;
        for outcome in all {
            assert!(matches!(outcome, Err(LockError::Backend { .. })), "{store:?}: {outcome:?}");
        }
    }
    assert_eq!(RUNS.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn every_waiter_behind_a_failing_front_gets_the_failure() {
    for store in Unreachable::EACH {
        let locks = on(store);
        let began = Instant::now();
        let waits = [0, 10, 500, 3_000, 10_000].map(Duration::from_millis);
        let all = waits.map(|wait| locks.lock("k").wait(wait).acquire());
        for (outcome, wait) in join_all(all).await.into_iter().zip(waits) {
            let failed = matches!(outcome, Err(LockError::Backend { .. }));
            assert!(failed, "{store:?} {wait:?}: {outcome:?}");
        }
        assert!(began.elapsed() <= Duration::from_secs(11) + Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_lock_is_busy_even_if_the_store_fails_meanwhile() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let held = locks.lock("k").ttl(Duration::from_mins(5)).acquire().await.expect("free");
    store.fail(Call::Acquire);
    let waiting = locks.lock("k").wait(Duration::from_secs(2)).acquire().await;
    assert!(matches!(waiting, Err(LockError::Busy { .. })), "{waiting:?}");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn waiters_get_the_failure_if_the_store_fails_after_the_key_was_busy() {
    let store = Memory::new();
    let other = on(store.clone());
    let store = Intercepted::new(store);
    let locks = on(store.clone());
    let _held = other.lock("k").ttl(Duration::from_mins(5)).acquire().await.expect("free");
    let mut front = pin!(locks.lock("k").wait(Duration::from_mins(2)).acquire());
    assert!(front.as_mut().now_or_never().is_none());
    let behind = |wait| locks.lock("k").wait(wait).acquire();
    let busy = tokio::select! {
        _ = front.as_mut() => panic!("held elsewhere"),
        busy = behind(Duration::from_secs(1)) => busy,
    };
    assert!(matches!(busy, Err(LockError::Busy { .. })), "{busy:?}");
    store.fail(Call::Acquire);
    let failed = tokio::select! {
        _ = front.as_mut() => panic!("its wait is longer"),
        failed = behind(Duration::from_secs(30)) => failed,
    };
    assert!(matches!(failed, Err(LockError::Backend { .. })), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_set_behind_a_failing_front_gets_the_failure() {
    let locks = on(Unreachable::Silent);
    let mut front = pin!(locks.lock("b").wait(Duration::from_secs(30)).acquire());
    assert!(front.as_mut().now_or_never().is_none());
    let set = locks.lock_all(["a", "b"]).wait(Duration::from_secs(2)).acquire();
    let set = tokio::select! {
        _ = front => panic!("its wait is longer"),
        set = set => set,
    };
    assert!(matches!(set, Err(LockError::Backend { .. })), "{set:?}");
}
