use super::*;

#[tokio::test(start_paused = true)]
async fn max_hold_still_ends_the_body() {
    for policy in [OnLost::Finish, OnLost::Keep] {
        let locks = on(Memory::new());
        let began = Instant::now();
        let lock = locks.lock("k").ttl(Duration::from_secs(3)).renew(false);
        let body = lock.max_hold(Duration::from_secs(10)).on_lost(policy).run(pending::<()>());
        let ended = timeout(Duration::from_mins(1), body).await.expect("it ends");
        let is_lost = matches!(
            ended,
            Err(LockError::Lost { reason: LostReason::Expired, completed: false, .. })
        );
        assert!(is_lost, "{ended:?}");
        let age = began.elapsed();
        assert!(age >= Duration::from_secs(10) && age < Duration::from_secs(11), "{age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_process_may_acquire_the_key() {
    for policy in [OnLost::Finish, OnLost::Keep] {
        let locks = on(Memory::new());
        let lock = locks.lock("k").ttl(Duration::from_secs(3)).renew(false).on_lost(policy);
        let body = lock.run(pending::<()>());
        let next = locks.lock("k").wait(Duration::from_secs(5));
        let next = next.run(async { "entered" });
        let entered = tokio::select! {
            entered = next => entered,
            _ = body => panic!("the body never ends"),
        };
        assert_eq!(entered.expect("the lease has ended"), "entered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_lost_its_lease_does_not_block_its_process() {
    let locks = on(Memory::new());
    let lock = locks.lock("k").ttl(Duration::from_secs(3)).renew(false);
    let lost = lock.acquire().await.expect("free");
    let next = locks.lock("k").wait(Duration::from_secs(5)).acquire().await;
    next.expect("the lease has ended").release().await.expect("held");
    assert!(lost.release().await.is_err());
}

/// An enclosing body holds one key of the set, so the set is acquired key by key. The first may be lost
/// meanwhile.
#[tokio::test(start_paused = true)]
async fn a_body_whose_lock_is_lost_before_it_starts_never_runs() {
    for policy in [OnLost::Cancel, OnLost::Finish, OnLost::Keep] {
        let store = Memory::new();
        let (locks, other) = (on(store.clone()), on(store));
        let busy = other.lock("b").acquire().await.expect("free");
        let mut ran = false;
        let set = locks.lock_all(["a", "b", "c"]).wait(Duration::from_mins(1)).on_lost(policy);
        let body = locks.lock("c").run(set.run(async { ran = true }));
        let lose_the_first = async {
            sleep(Duration::from_secs(1)).await;
            assert!(other.force_release("a").await.expect("an answer"), "`a` is held");
            // Long enough for a renewal to find that `a` is lost.
            sleep(Duration::from_secs(30)).await;
            busy.release().await.expect("held");
        };
        let (ended, ()) = tokio::join!(body, lose_the_first);
        let ended = ended.expect("`c` is held throughout");
        assert!(matches!(ended, Err(LockError::Lost { completed: false, .. })), "{ended:?}");
        assert!(!ran, "{policy:?}: the body ran without its lock");
        // The other keys were released before the call returned, so the caller can retry at once.
        let again = locks.lock_all(["a", "b", "c"]).wait(Duration::ZERO).acquire().await;
        again.expect("all are free").release().await.expect("held");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nested_body_under_a_lost_hold_never_starts() {
    for policy in [OnLost::Finish, OnLost::Keep] {
        let locks = on(Memory::new());
        let outer = locks.lock("k").ttl(Duration::from_secs(3)).renew(false);
        let mut ran = false;
        let body = outer.on_lost(OnLost::Keep).run(async {
            sleep(Duration::from_secs(5)).await;
            locks.lock("k").on_lost(policy).run(async { ran = true }).await
        });
        let nested = body.await.expect("the outer body is kept");
        assert!(matches!(nested, Err(LockError::Lost { completed: false, .. })), "{nested:?}");
        assert!(!ran, "{policy:?}: the nested body ran without the lock");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nested_bound_still_ends_a_nested_body_that_keeps_going() {
    let locks = on(Memory::new());
    let outer = locks.lock("k").ttl(Duration::from_secs(3)).renew(false);
    let body = outer.on_lost(OnLost::Keep).run(async {
        let nested = locks.lock("k").max_hold(Duration::from_secs(10)).on_lost(OnLost::Keep);
        nested.run(pending::<()>()).await
    });
    let ended = timeout(Duration::from_mins(1), body).await.expect("it ends");
    let ended = ended.expect("the outer body is kept");
    assert!(matches!(ended, Err(LockError::Lost { completed: false, .. })), "{ended:?}");
}
