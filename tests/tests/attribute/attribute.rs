//! The attribute's options on the memory backend. Time is paused, so the assertions are exact.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dlock_runtime::backend::Memory;
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{LockError, LockKey, Registry, distributed_lock};
use futures_util::future::join_all;
use tokio::time::{Instant, advance, sleep};

fn registry() -> Registry {
    Registry::builder().backend("memory", Memory::new()).build().expect("a registry")
}

fn intercepted() -> (Registry, Intercepted) {
    let store = Intercepted::new(Memory::new());
    let registry = Registry::builder().backend("memory", store.clone()).build();
    (registry.expect("a registry"), store)
}

/// Holds the key until the guard is dropped, as another process would.
async fn busy(registry: &Registry, key: &str) -> dlock_runtime::LockGuard {
    registry.lock(key).acquire().await.expect("free")
}

#[distributed_lock(key = "k:<id>", wait = "2s")]
async fn waits(id: u32) -> Result<u32, LockError> {
    Ok(id)
}

#[tokio::test(start_paused = true)]
async fn wait_is_exact_on_a_paused_clock() {
    let registry = registry();
    let _held = busy(&registry, "k:1").await;
    let began = Instant::now();
    let answer = registry.scope(waits(1)).await;
    assert!(answer.is_err_and(|error| error.is_busy()));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[distributed_lock(key = "k")]
async fn waits_by_default() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_default_wait_is_a_ttl_and_a_second() {
    let registry = registry();
    let _held = busy(&registry, "k").await;
    let began = Instant::now();
    assert!(registry.scope(waits_by_default()).await.is_err());
    assert_eq!(began.elapsed(), Duration::from_secs(31));
}

#[distributed_lock(key = "k", wait = "0s")]
async fn tries_once() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_zero_wait_fails_at_once() {
    let registry = registry();
    let _held = busy(&registry, "k").await;
    let began = Instant::now();
    assert!(registry.scope(tries_once()).await.is_err_and(|error| error.is_busy()));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[distributed_lock(key = "k", wait = "forever")]
async fn waits_forever() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn waiting_forever_outlasts_a_week() {
    let registry = registry();
    let held = busy(&registry, "k").await;
    let release = async {
        sleep(Duration::from_hours(24 * 7)).await;
        held.release().await
    };
    let (answer, released) = tokio::join!(registry.scope(waits_forever()), release);
    released.expect("renewed for a week");
    answer.expect("free after a week");
}

#[distributed_lock(key = "k", wait = "0s", on_busy = "skip")]
async fn skips_to_none(ran: &AtomicU32) -> Result<Option<u32>, LockError> {
    ran.fetch_add(1, Ordering::Relaxed);
    Ok(Some(1))
}

#[distributed_lock(key = "k", wait = "0s", on_busy = "skip")]
async fn skips_to_unit(ran: &AtomicU32) -> Result<(), LockError> {
    ran.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_skipped_body_returns_none_or_unit() {
    let (registry, ran) = (registry(), AtomicU32::new(0));
    assert_eq!(registry.scope(skips_to_none(&ran)).await.expect("free"), Some(1));
    let held = busy(&registry, "k").await;
    assert_eq!(registry.scope(skips_to_none(&ran)).await.expect("skipped"), None);
    registry.scope(skips_to_unit(&ran)).await.expect("skipped");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
    held.release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn a_failing_backend_is_an_error_even_with_on_busy_skip() {
    let (registry, store) = intercepted();
    store.fail(Call::Acquire);
    let ran = AtomicU32::new(0);
    let answer = registry.scope(skips_to_none(&ran)).await;
    assert!(matches!(answer, Err(LockError::Backend { .. })), "{answer:?}");
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[distributed_lock(key = "k", on_busy = "skip")]
async fn skips_at_once(ran: &AtomicU32) -> Result<(), LockError> {
    ran.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_may_be_skipped_does_not_wait_unless_it_says_so() {
    let registry = registry();
    let held = busy(&registry, "k").await;
    let (ran, began) = (AtomicU32::new(0), Instant::now());
    registry.scope(skips_at_once(&ran)).await.expect("skipped");
    assert_eq!((ran.load(Ordering::Relaxed), began.elapsed()), (0, Duration::ZERO));
    held.release().await.expect("held");
    registry.scope(skips_at_once(&ran)).await.expect("free");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[distributed_lock(key = "outer", on_busy = "skip")]
async fn skips_but_its_body_meets_a_busy_lock() -> Result<(), LockError> {
    tries_once().await
}

#[tokio::test(start_paused = true)]
async fn a_busy_lock_inside_the_body_is_not_skipped() {
    let registry = registry();
    let _held = busy(&registry, "k").await;
    let answer = registry.scope(skips_but_its_body_meets_a_busy_lock()).await;
    assert!(answer.is_err_and(|error| error.is_busy()));
}

#[distributed_lock(keys = ["account:<from>", "account:<to>"], guard = locks)]
async fn transfer(from: u32, to: u32) -> Result<Vec<String>, LockError> {
    Ok(locks.holds().iter().map(|guard| guard.key().to_string()).collect())
}

#[tokio::test(start_paused = true)]
async fn several_keys_are_held_in_canonical_order_without_duplicates() {
    let registry = registry();
    let keys = |from, to| registry.scope(transfer(from, to));
    assert_eq!(keys(1, 2).await.expect("free"), ["account:1", "account:2"]);
    assert_eq!(keys(2, 1).await.expect("free"), ["account:1", "account:2"]);
    assert_eq!(keys(1, 1).await.expect("free"), ["account:1"]);
}

fn key_of(tenant: &str, id: u32) -> LockKey {
    LockKey::of("user", &[&tenant, &id])
}

#[distributed_lock(key = key_of(tenant, id), guard = lock)]
async fn keyed_by_expression(tenant: &str, id: u32) -> Result<String, LockError> {
    Ok(lock.key().to_string())
}

#[tokio::test(start_paused = true)]
async fn a_key_may_be_an_expression() {
    let key = registry().scope(keyed_by_expression("a:b", 7)).await.expect("free");
    assert_eq!(key, "user:a%3Ab:7");
}

#[distributed_lock(key = "<<a>>:<name>")]
async fn keyed_by_text(name: &str) -> Result<(), LockError> {
    let _ = name;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_empty_value_or_a_long_key_is_refused_before_anything_is_sent() {
    let (registry, store) = intercepted();
    for name in ["", &"x".repeat(600)] {
        let answer = registry.scope(keyed_by_text(name)).await;
        assert!(matches!(answer, Err(LockError::InvalidKey { .. })), "{answer:?}");
    }
    assert_eq!(store.count(Call::Acquire), 0);
}

#[distributed_lock(key = "k", backend = "elsewhere")]
async fn on_another_backend() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_unknown_backend_error_lists_the_known_ones() {
    let error = registry().scope(on_another_backend()).await.expect_err("not registered");
    let text = error.to_string();
    assert!(text.contains("elsewhere") && text.contains("memory"), "{text}");
}

#[tokio::test]
async fn without_a_registry_the_body_does_not_run() {
    let ran = AtomicU32::new(0);
    let answer = skips_to_unit(&ran).await;
    assert!(matches!(answer, Err(LockError::NotInstalled)), "{answer:?}");
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[distributed_lock(key = "k", ttl = "3s")]
async fn runs_for(length: Duration) -> Result<(), LockError> {
    sleep(length).await;
    Ok(())
}

#[distributed_lock(key = "k", ttl = "3s", renew = false)]
async fn runs_unrenewed_for(length: Duration) -> Result<(), LockError> {
    sleep(length).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_every_third_of_its_ttl_or_a_little_sooner() {
    let (registry, store) = intercepted();
    registry.scope(runs_for(Duration::from_millis(9_500))).await.expect("renewed");
    // By jitter, and to be sent with others, a renewal may come a quarter of its period too early.
    let renewals = store.count(Call::Renew);
    assert!((9..=12).contains(&renewals), "{renewals} renewals");
    assert_eq!(store.count(Call::Acquire), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unrenewed_body_is_stopped_at_its_ttl() {
    let (registry, store) = intercepted();
    registry.scope(runs_unrenewed_for(Duration::from_secs(2))).await.expect("within its ttl");
    let began = Instant::now();
    let answer = registry.scope(runs_unrenewed_for(Duration::from_secs(4))).await;
    assert!(matches!(answer, Err(LockError::Lost { completed: false, .. })), "{answer:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(store.count(Call::Renew), 0);
}

#[distributed_lock(key = "k", ttl = "3s", renew = false, on_lost = "finish")]
async fn finishes(length: Duration, ran: &AtomicU32) -> Result<(), LockError> {
    sleep(length).await;
    ran.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[distributed_lock(key = "k", ttl = "3s", renew = false, on_lost = "keep")]
async fn keeps(length: Duration) -> Result<u32, LockError> {
    sleep(length).await;
    Ok(7)
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_follows_on_lost() {
    let (registry, ran) = (registry(), AtomicU32::new(0));
    let long = Duration::from_secs(5);
    let answer = registry.scope(finishes(long, &ran)).await;
    assert!(matches!(answer, Err(LockError::Lost { completed: true, .. })), "{answer:?}");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
    assert_eq!(registry.scope(keeps(long)).await.expect("its own result"), 7);
}

#[derive(Debug, PartialEq)]
enum ShopError {
    Own,
    Lock(&'static str),
}

impl From<LockError> for ShopError {
    fn from(error: LockError) -> Self {
        Self::Lock(if error.is_lost() { "lost" } else { "other" })
    }
}

#[distributed_lock(key = "k", ttl = "3s", renew = false, on_lost = "finish")]
async fn fails_after_the_loss() -> Result<(), ShopError> {
    sleep(Duration::from_secs(5)).await;
    Err(ShopError::Own)
}

#[tokio::test(start_paused = true)]
async fn a_bodys_own_error_takes_precedence_over_a_loss() {
    assert_eq!(registry().scope(fails_after_the_loss()).await, Err(ShopError::Own));
}

#[distributed_lock(key = "k", max_hold = "4s")]
async fn bounded(length: Duration) -> Result<(), LockError> {
    sleep(length).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn max_hold_is_exact_and_frees_the_key() {
    let registry = registry();
    let began = Instant::now();
    let answer = registry.scope(bounded(Duration::from_secs(5))).await;
    assert!(matches!(answer, Err(LockError::HeldTooLong { .. })), "{answer:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(4));
    registry.scope(tries_once()).await.expect("free at once");
    registry.scope(bounded(Duration::from_secs(3))).await.expect("within its bound");
}

#[distributed_lock(key = "k", min_hold = "10s")]
async fn scheduled() -> Result<(), LockError> {
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn min_hold_is_exact_and_the_caller_does_not_wait_for_it() {
    let registry = registry();
    let began = Instant::now();
    registry.scope(scheduled()).await.expect("free");
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    advance(Duration::from_millis(8_999)).await;
    assert!(registry.scope(tries_once()).await.is_err_and(|error| error.is_busy()));
    advance(Duration::from_millis(1)).await;
    registry.scope(tries_once()).await.expect("free after its min_hold");
}

#[distributed_lock(key = "k", wait = "1m")]
async fn in_line() -> Result<(), LockError> {
    tokio::task::yield_now().await;
    Ok(())
}

#[distributed_lock(key = "k", wait = "1m", handover = "off")]
async fn in_line_at_the_store() -> Result<(), LockError> {
    tokio::task::yield_now().await;
    Ok(())
}

#[distributed_lock(key = "k", wait = "1m", handover = "3 in 1s")]
async fn in_line_in_fours() -> Result<(), LockError> {
    tokio::task::yield_now().await;
    Ok(())
}

/// The acquires that 41 calls at once send.
async fn acquires_of<F: Future<Output = Result<(), LockError>>>(call: fn() -> F) -> usize {
    let (registry, store) = intercepted();
    for called in join_all((0..41).map(|_| registry.scope(call()))).await {
        called.expect("in turn");
    }
    store.count(Call::Acquire)
}

#[tokio::test(start_paused = true)]
async fn a_lease_passes_from_task_to_task_as_far_as_the_site_allows() {
    // Nobody waits behind the first call when it asks.
    assert_eq!(acquires_of(in_line).await, 2);
    assert_eq!(acquires_of(in_line_at_the_store).await, 41);
    assert_eq!(acquires_of(in_line_in_fours).await, 11);
}

#[allow(clippy::needless_pass_by_value)] // the signature that `map_err` requires
fn as_tuple(error: LockError) -> (u16, String) {
    (503, error.to_string())
}

#[distributed_lock(key = "k", wait = "0s", map_err = as_tuple)]
async fn for_a_handler() -> Result<(), (u16, String)> {
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_type_is_mapped() {
    let registry = registry();
    let _held = busy(&registry, "k").await;
    assert_eq!(registry.scope(for_a_handler()).await.expect_err("busy").0, 503);
}

#[distributed_lock(key = "k")]
async fn outer() -> Result<u64, LockError> {
    inner().await
}

#[distributed_lock(key = "k", wait = "0s", guard = lock)]
async fn inner() -> Result<u64, LockError> {
    Ok(lock.fencing_token().get())
}

#[distributed_lock(key = "k", wait = "0s", reentrant = false)]
async fn refuses_to_nest() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(key = "k")]
async fn outer_of_one_that_refuses() -> Result<(), LockError> {
    refuses_to_nest().await
}

#[tokio::test(start_paused = true)]
async fn nested_calls_enter_unless_reentrant_is_false() {
    let (registry, store) = intercepted();
    registry.scope(outer()).await.expect("nested");
    assert_eq!((store.count(Call::Acquire), store.count(Call::Release)), (1, 1));
    let answer = registry.scope(outer_of_one_that_refuses()).await;
    let error = answer.expect_err("a self-deadlock");
    assert!(error.hint().is_some_and(|hint| hint.contains("the same task")), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn registries_on_separate_stores_do_not_share_locks() {
    let (one, two) = (registry(), registry());
    let _held = busy(&one, "k").await;
    two.scope(tries_once()).await.expect("another store");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_expired_before_its_grant_arrived_is_not_used() {
    let (registry, store) = intercepted();
    store.delay(Call::Acquire);
    let ttl = Duration::from_millis(100);
    let acquire = registry.lock("k").ttl(ttl).wait(Duration::from_secs(1)).acquire();
    let late = async {
        sleep(ttl * 2).await;
        store.heal();
    };
    let (guard, ()) = tokio::join!(acquire, late);
    let guard = guard.expect("granted afresh");
    assert!(guard.is_held() && store.count(Call::Acquire) >= 2);
    assert!(!guard.remaining().is_zero());
    guard.release().await.expect("held to the end");

    // If every answer comes too late, the wait still ends.
    store.delay(Call::Acquire);
    let acquire = registry.lock("k").ttl(ttl).wait(Duration::from_millis(300)).acquire();
    let always_late = async {
        sleep(Duration::from_millis(400)).await;
        store.heal();
    };
    let (answer, ()) = tokio::join!(acquire, always_late);
    assert!(matches!(answer, Err(LockError::Backend { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_never_polled_after_its_proof_has_ended() {
    let registry = registry();
    let began = Instant::now();
    let latest = AtomicU32::new(0);
    let body = std::future::poll_fn(|_| {
        let now = u32::try_from(began.elapsed().as_millis()).expect("a short test");
        latest.store(now, Ordering::Relaxed);
        std::task::Poll::<()>::Pending
    });
    let lock = registry.lock("k").ttl(Duration::from_millis(100)).renew(false);
    // Simulates a paused process: nothing runs for a second, then everything is due at once.
    let pause = async {
        sleep(Duration::from_millis(45)).await;
        advance(Duration::from_secs(1)).await;
    };
    let (ended, ()) = tokio::join!(lock.run(body), pause);
    assert!(matches!(ended, Err(LockError::Lost { completed: false, .. })), "{ended:?}");
    assert!(latest.load(Ordering::Relaxed) < 100, "polled at {latest:?} ms of a lease of 100 ms");
}

#[tokio::test(start_paused = true)]
async fn a_release_waits_for_the_renewal_in_flight() {
    let (registry, store) = intercepted();
    let guard = registry.lock("k").ttl(Duration::from_secs(3)).acquire().await.expect("free");
    store.delay(Call::Renew);
    store.reached(Call::Renew, 1).await;
    let release = guard.release();
    let watch = async {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(store.count(Call::Release), 0, "released while a renewal was in flight");
        store.heal();
    };
    let (released, ()) = tokio::join!(release, watch);
    released.expect("held to the end");
    assert_eq!(store.count(Call::Release), 1);
    sleep(Duration::from_secs(9)).await;
    assert_eq!(store.count(Call::Renew), 1, "renewed after its release");
}

/// Records, when it is dropped, how many releases there have been.
struct Witness(Intercepted, std::sync::Arc<AtomicU32>);

impl Drop for Witness {
    fn drop(&mut self) {
        let releases = u32::try_from(self.0.count(Call::Release)).expect("few");
        self.1.store(releases + 1, Ordering::Relaxed);
    }
}

#[distributed_lock(key = "k", max_hold = "1s")]
async fn stopped(_witness: Witness) -> Result<(), LockError> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_stopped_or_dropped_body_drops_its_arguments_before_the_release() {
    let (registry, store) = intercepted();
    let seen = std::sync::Arc::new(AtomicU32::new(0));
    let witness = || Witness(store.clone(), seen.clone());
    let ended = registry.scope(stopped(witness())).await;
    assert!(matches!(ended, Err(LockError::HeldTooLong { .. })), "{ended:?}");
    assert_eq!(seen.swap(0, Ordering::Relaxed), 1, "released before its argument was dropped");

    let call = registry.scope(stopped(witness()));
    let dropped = tokio::time::timeout(Duration::from_millis(500), call).await;
    assert!(dropped.is_err());
    // One release so far, that of the first call.
    assert_eq!(seen.swap(0, Ordering::Relaxed), 2, "released before its argument was dropped");
    registry.shutdown(Duration::from_secs(1)).await.expect("released in the background");
    assert_eq!(store.count(Call::Release), 2);
}

#[distributed_lock(key = "seen:<id>", ttl = "9s")]
async fn never_ends(id: u32) -> Result<(), LockError> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn an_operator_sees_the_function_and_ends_its_hold() {
    let registry = registry();
    let running = tokio::spawn({
        let registry = registry.clone();
        async move { registry.scope(never_ends(1)).await }
    });
    // By then it waits for the renewal. While time is paused, only a sleep lets it get that far.
    sleep(Duration::from_millis(1)).await;
    let other = busy(&registry, "other").await;

    let locks = registry.inspect("seen:").await.expect("an answer");
    let [lock] = &locks[..] else { panic!("{locks:?}") };
    let who = lock.holders[0].client_info.as_ref().expect("every hold stores it");
    assert_eq!(who.label(), concat!(module_path!(), "::never_ends"));
    assert_eq!(who.process_id(), std::process::id());
    let everything = registry.inspect_in("memory", "").await.expect("an answer");
    assert_eq!(everything.len(), 2);
    assert!(registry.inspect_in("nowhere", "").await.is_err());

    let began = Instant::now();
    assert!(registry.revoke("seen:1").await.expect("an answer"));
    let lost = running.await.expect("no panic").expect_err("it was revoked");
    assert!(matches!(lost, LockError::Lost { completed: false, .. }), "{lost}");
    assert!(began.elapsed() <= Duration::from_secs(3), "a renewal is a third of a ttl away");
    let next = registry.lock("seen:1").wait(Duration::from_secs(1)).acquire().await;
    next.expect("released").release().await.expect("held");
    assert!(registry.force_release("other").await.expect("an answer"));
    assert!(other.release().await.is_err());
}
