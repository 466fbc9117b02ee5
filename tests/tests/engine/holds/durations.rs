use super::*;

#[tokio::test(start_paused = true)]
async fn the_longest_wait_and_max_hold_mean_unlimited() {
    let locks = on(Memory::new());
    let lock = locks.lock("k").wait(Duration::MAX).max_hold(Duration::MAX);
    assert_eq!(lock.run(async { 1 }).await.expect("free"), 1);
    let nested = locks.lock("k").run(async {
        let nested = locks.lock("k").wait(Duration::MAX).max_hold(Duration::MAX);
        nested.run(async { 2 }).await
    });
    assert_eq!(nested.await.expect("free").expect("nested"), 2);
    let fair = locks.lock("k").fair(true).wait(Duration::MAX).max_hold(Duration::MAX);
    fair.acquire().await.expect("free").release().await.expect("held");
    let set = locks.lock_all(["a", "k"]).wait(Duration::MAX).max_hold(Duration::MAX);
    set.acquire().await.expect("free").release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn absurd_durations_are_rejected_before_anything_is_sent() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let refused =
        |outcome: Result<_, LockError>| matches!(outcome, Err(LockError::Unsupported { .. }));
    for absurd in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
        assert!(refused(locks.lock("k").ttl(absurd).acquire().await.map(drop)));
        assert!(refused(locks.lock("k").min_hold(absurd).acquire().await.map(drop)));
        let nested =
            locks.lock("k").run(async { locks.lock("k").min_hold(absurd).run(async {}).await });
        assert!(refused(nested.await.expect("free")));
    }
    assert_eq!(store.count(Call::Acquire), 2, "only for the outer bodies");
    let guard = locks.lock("k").acquire().await.expect("free");
    let before = store.count(Call::Renew);
    for absurd in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
        assert!(refused(guard.extend(absurd).await));
    }
    assert_eq!(store.count(Call::Renew), before);
    assert!(guard.is_held());
    guard.release().await.expect("held");
}

#[test]
fn an_absurd_default_ttl_is_rejected_by_the_builder() {
    let registry = Registry::builder().default_ttl(Duration::MAX);
    let refused = registry.backend("store", Memory::new()).build();
    assert!(refused.is_err(), "{refused:?}");
}
