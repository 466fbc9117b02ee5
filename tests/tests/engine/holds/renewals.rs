use super::*;

#[tokio::test(start_paused = true)]
async fn a_proof_that_has_ended_is_not_revived_by_a_late_renewal() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard = locks.lock("k").ttl(Duration::from_secs(3)).acquire().await.expect("free");
    store.delay(Call::Renew);
    store.reached(Call::Renew, 1).await;
    // Simulates a paused process. When it resumes, the answer has arrived. The old proof has
    // ended by then, although one counted from the sending of the renewal would not have.
    store.heal();
    advance(Duration::from_millis(2_500)).await;
    assert!(!guard.is_held(), "another owner may have held it in between");
    assert!(matches!(guard.release().await, Err(LockError::Lost { .. })));
}

#[tokio::test(start_paused = true)]
async fn one_lost_packet_loses_no_lease_however_short() {
    for millis in [100, 500, 1_500, 30_000] {
        let locks = on(Renewals::new(|_, before| match before {
            0 => Fate::Unanswered,
            _ => Fate::Passed,
        }));
        let ttl = Duration::from_millis(millis);
        let guard = locks.lock("k").ttl(ttl).acquire().await.expect("free");
        sleep(ttl * 2).await;
        assert!(guard.is_held(), "{ttl:?}");
        guard.release().await.expect("held");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_retried_a_few_times_per_hold() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let ttl = Duration::from_secs(30);
    let mut guards = Vec::new();
    for hold in 0..100 {
        guards.push(locks.lock(format!("k{hold}")).ttl(ttl).acquire().await.expect("free"));
    }
    store.fail(Call::Renew);
    sleep(ttl * 2).await;
    assert!(guards.iter().all(|guard| !guard.is_held()));
    let each = store.count(Call::Renew) / guards.len();
    assert!((4..=16).contains(&each), "{each} attempts per hold");
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_loses_no_hold() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    for millis in [300, 3_000, 30_000] {
        let ttl = Duration::from_millis(millis);
        let guard = locks.lock("k").ttl(ttl).acquire().await.expect("free");
        sleep(ttl / 4).await;
        store.fail(Call::Renew);
        sleep(ttl / 2).await;
        store.heal();
        sleep(ttl).await;
        assert!(guard.is_held(), "{ttl:?}");
        guard.release().await.expect("held");
    }
}
