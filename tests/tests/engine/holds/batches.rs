//! Leases that are renewed together.

use dlock_runtime::LockGuard;

use super::*;

const TTL: Duration = Duration::from_secs(30);

/// Acquires this many leases at the same moment of a paused clock.
async fn held(locks: &Registry, leases: usize) -> Vec<LockGuard> {
    let mut guards = Vec::with_capacity(leases);
    for number in 0..leases {
        let lock = locks.lock(format!("key:{number}")).ttl(TTL);
        guards.push(lock.acquire().await.expect("free"));
    }
    guards
}

#[tokio::test(start_paused = true)]
async fn leases_that_are_due_together_are_renewed_in_one_request() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guards = held(&locks, 100).await;
    sleep(TTL / 3).await;
    store.reached(Call::Renew, 100).await;
    assert_eq!((store.count(Call::Renew), store.requests(Call::Renew)), (100, 1));
    sleep(TTL * 2).await;
    assert!(guards.iter().all(LockGuard::is_held));
    let (renewals, requests) = (store.count(Call::Renew), store.requests(Call::Renew));
    assert_eq!(renewals, requests * 100, "they stay together");
}

#[tokio::test(start_paused = true)]
async fn more_leases_than_fit_into_a_request_are_renewed_in_several() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guards = held(&locks, 600).await;
    sleep(TTL / 3).await;
    store.reached(Call::Renew, 600).await;
    let requests = store.requests(Call::Renew);
    assert!((3..=6).contains(&requests), "600 renewals in {requests} requests");
    sleep(TTL * 2).await;
    assert!(guards.iter().all(LockGuard::is_held));
}

#[tokio::test(start_paused = true)]
async fn many_leases_acquired_at_once_are_not_renewed_at_once() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let began = Instant::now();
    let guards = held(&locks, 10_000).await;
    sleep(Duration::from_secs(8).saturating_sub(began.elapsed())).await;
    let (early, requests) = (store.count(Call::Renew), store.requests(Call::Renew));
    assert!((500..4_000).contains(&early), "{early} of 10,000 renewals after 8 s");
    assert!(requests <= early / 200, "{early} renewals in {requests} requests");
    sleep(Duration::from_secs(2)).await;
    store.reached(Call::Renew, 10_000).await;
    assert!(guards.iter().all(LockGuard::is_held));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_without_an_answer_delays_no_other_of_its_request() {
    let store = Renewals::new(|key, _| match key.as_str() {
        "key:1" => Fate::Unanswered,
        "key:2" => Fate::Panic,
        _ => Fate::Passed,
    });
    let locks = on(store);
    let mut guards = held(&locks, 4).await;
    // At the first renewal, and while the one of `key:1` is in flight.
    sleep(TTL / 3).await;
    let fresh = TTL * 9 / 10;
    assert!(guards[0].remaining() > fresh && guards[3].remaining() > fresh);
    let began = Instant::now();
    guards.remove(3).release().await.expect("held");
    assert_eq!(began.elapsed(), Duration::ZERO, "its renewal was answered");
    sleep(TTL * 2).await;
    let held: Vec<_> = guards.iter().map(LockGuard::is_held).collect();
    assert_eq!(held, [true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_a_whole_request_is_asked_again() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guards = held(&locks, 300).await;
    store.fail(Call::Renew);
    store.reached(Call::Renew, 300).await;
    store.heal();
    sleep(TTL * 2).await;
    assert!(guards.iter().all(LockGuard::is_held));
}
