use super::*;

const LIMIT: Duration = Duration::from_millis(1_100);

#[tokio::test(start_paused = true)]
async fn a_release_does_not_wait_for_a_renewal_that_hangs() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard = locks.lock("k").ttl(Duration::from_secs(30)).acquire().await.expect("free");
    store.delay(Call::Renew);
    store.reached(Call::Renew, 1).await;
    let began = Instant::now();
    guard.release().await.expect("held");
    assert!(began.elapsed() <= LIMIT, "{:?}", began.elapsed());
    let next = locks.lock("k").wait(Duration::ZERO).acquire().await;
    next.expect("it was released").release().await.expect("held");
}

#[test]
fn a_guard_can_be_released_after_the_runtime_of_its_acquire_is_dropped() {
    for hung in [false, true] {
        let store = Intercepted::new(Memory::new());
        let locks = on(store.clone());
        let first = runtime();
        let lock = locks.lock("k").ttl(Duration::from_secs(2));
        let guard = first.block_on(lock.acquire()).expect("free");
        if hung {
            store.delay(Call::Renew);
            first.block_on(store.reached(Call::Renew, 1));
        }
        drop(first);
        release_in_another(&locks, guard);
    }
}

#[test]
fn a_guard_can_be_released_while_the_runtime_of_its_acquire_is_stalled() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let first = runtime();
    let lock = locks.lock("k").ttl(Duration::from_secs(2));
    let guard = first.block_on(lock.acquire()).expect("free");
    store.delay(Call::Renew);
    first.block_on(store.reached(Call::Renew, 1));
    // From here on, nothing drives the runtime.
    release_in_another(&locks, guard);
    drop(first);
}

fn release_in_another(locks: &Registry, guard: dlock_runtime::LockGuard) {
    runtime().block_on(async {
        // Whether or not the lease was lost, there must be an answer.
        let _ = timeout(Duration::from_secs(30), guard.release()).await.expect("an answer");
        let next = locks.lock("k").wait(Duration::from_secs(30)).acquire().await;
        next.expect("free").release().await.expect("held");
        let end = locks.shutdown(Duration::from_secs(30)).await;
        end.expect("nothing is held");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

#[tokio::test(start_paused = true)]
async fn a_panicking_renewal_ends_at_most_its_own_hold() {
    let locks =
        on(Renewals::new(|key, _| if key.as_str() == "bad" { Fate::Panic } else { Fate::Passed }));
    let ttl = Duration::from_secs(3);
    let good = locks.lock("good").ttl(ttl).acquire().await.expect("free");
    let bad = locks.lock("bad").ttl(ttl).run(pending::<()>());
    let ended = timeout(Duration::from_secs(30), bad).await.expect("it ends");
    assert!(matches!(ended, Err(LockError::Lost { .. })), "{ended:?}");
    assert!(good.is_held(), "another hold is still renewed");
    good.release().await.expect("held");
    locks.shutdown(Duration::from_secs(30)).await.expect("nothing is held");
}
