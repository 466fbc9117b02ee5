//! Who waits for whom: every wait is charged to the site that held the lock meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dlock_runtime::backend::{Holder, Memory, ShownBy};
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{Blame, HolderSite, LockError, Mode, Registry};
use tokio::time::{Instant, sleep};

const MILLISECOND: Duration = Duration::from_millis(1);

fn on(store: &Memory) -> Registry {
    Registry::builder().backend("shop", store.clone()).build().expect("a registry")
}

/// Holds the lock again and again, each time for so long, until this moment. Returns how long it has waited in all.
async fn use_often(
    locks: Registry,
    site: &'static str,
    hold: Duration,
    until: Instant,
) -> Duration {
    let mut waited = Duration::ZERO;
    while Instant::now() < until {
        let began = Instant::now();
        let lock = locks.lock("product:1").template(site).wait(Duration::from_mins(1));
        let guard = lock.acquire().await.expect("it is free in time");
        waited += began.elapsed();
        sleep(hold).await;
        guard.release().await.expect("held");
    }
    waited
}

fn blamed(blame: &[Blame], holder: &str) -> Duration {
    blame.iter().filter(|one| one.holder.name() == holder).map(|one| one.waited).sum()
}

fn within_5_percent(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= other / 20
}

#[tokio::test(start_paused = true)]
async fn the_site_that_holds_the_lock_for_most_of_the_time_is_blamed_for_most_of_the_waiting() {
    let locks = on(&Memory::new());
    let until = Instant::now() + Duration::from_secs(10);
    let mut tasks = tokio::task::JoinSet::new();
    for (site, hold) in [("purchase", 1), ("stock-taking", 9)] {
        for _ in 0..5 {
            tasks.spawn(use_often(locks.clone(), site, MILLISECOND * hold, until));
        }
    }
    let waited: Duration = tasks.join_all().await.into_iter().sum();
    let contention = locks.contention();
    assert!(contention.waiting.is_empty());
    assert!(within_5_percent(contention.waited(), waited), "{waited:?}, {contention:?}");
    let worst = &contention.blame[0];
    assert_eq!(worst.holder, HolderSite::Here("stock-taking".to_owned()));
    assert!(worst.longest_hold.as_ref().is_some_and(|(key, _)| key.as_str() == "product:1"));
    let of = |holder| blamed(&contention.blame, holder).as_secs_f64() / waited.as_secs_f64();
    assert!((0.88..0.92).contains(&of("stock-taking")), "{contention:?}");
    assert!((0.08..0.12).contains(&of("purchase")), "{contention:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_leases_are_charged_too() {
    let locks = on(&Memory::new());
    let waited = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let (locks, waited) = (locks.clone(), Arc::clone(&waited));
        tasks.spawn(async move {
            let site = if task % 2 == 0 { "even" } else { "odd" };
            for _ in 0..300 {
                let began = Instant::now();
                let guard = locks.lock("product:1").template(site).acquire().await.expect("free");
                let micros = u64::try_from(began.elapsed().as_micros()).expect("short");
                waited.fetch_add(micros, Ordering::Relaxed);
                guard.release().await.expect("held");
            }
        });
    }
    tasks.join_all().await;
    let contention = locks.contention();
    let waited = Duration::from_micros(waited.load(Ordering::Relaxed));
    // The test measures a little more: from the beginning of a call until its task runs again.
    let charged = contention.waited().as_secs_f64() / waited.as_secs_f64();
    assert!((0.9..1.02).contains(&charged), "{charged}, {contention:?}");
    for site in ["even", "odd"] {
        assert!(!blamed(&contention.blame, site).is_zero(), "{contention:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_wait_is_not_charged() {
    let locks = on(&Memory::new());
    for _ in 0..10 {
        locks.lock("product:1").run(async {}).await.expect("free");
    }
    let held = locks.lock("product:1").acquire().await.expect("free");
    let refused = locks.lock("product:1").wait(Duration::ZERO).acquire().await;
    assert!(matches!(refused, Err(LockError::Busy { .. })));
    held.release().await.expect("held");
    assert!(locks.contention().blame.is_empty(), "{:?}", locks.contention());
}

#[tokio::test(start_paused = true)]
async fn waits_that_time_out_or_are_cancelled_are_charged() {
    let locks = on(&Memory::new());
    let held = locks.lock("product:1").template("stock-taking").acquire().await.expect("free");
    let wait = |limit: u32| {
        locks.lock("product:1").template("purchase").wait(MILLISECOND * limit).acquire()
    };
    wait(100).await.expect_err("busy");
    tokio::time::timeout(MILLISECOND * 50, wait(100)).await.expect_err("cancelled");
    held.release().await.expect("held");
    let contention = locks.contention();
    assert_eq!(contention.blame.len(), 1, "{contention:?}");
    let Blame { waits, waited, .. } = &contention.blame[0];
    assert_eq!(*waits, 2);
    assert!(within_5_percent(*waited, MILLISECOND * 150), "{contention:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_now_are_listed_and_their_waits_counted() {
    let locks = on(&Memory::new());
    let held = locks.lock("product:1").template("stock-taking").acquire().await.expect("free");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let purchase = locks.lock("product:1").template("purchase");
        waiting.spawn(async move { purchase.run(async {}).await });
        sleep(Duration::from_secs(1)).await;
    }
    let contention = locks.contention();
    assert_eq!(contention.waiting.len(), 1, "{contention:?}");
    assert_eq!(contention.waiting[0].waiter, "purchase");
    assert_eq!(contention.waiting[0].count, 3);
    assert!(within_5_percent(contention.waiting[0].oldest, Duration::from_secs(3)));
    assert!(within_5_percent(contention.waited(), Duration::from_secs(6)), "{contention:?}");
    held.release().await.expect("held");
    waiting.join_all().await.into_iter().collect::<Result<(), _>>().expect("free");
    assert!(locks.contention().waiting.is_empty());
}

/// Two registries are two processes. The store knows the label of the holder.
#[tokio::test(start_paused = true)]
async fn a_holder_in_another_process_is_found_out() {
    let store = Memory::new();
    let (here, there) = (on(&store), on(&store));
    for lock in [
        there.lock("product:1"),
        there.lock("product:1").mode(Mode::Shared),
        there.lock("product:1").permits(3.try_into().expect("not zero")),
    ] {
        let before = blamed(&here.contention().blame, "shop::take_stock");
        let held = lock.label("shop::take_stock").acquire().await.expect("free");
        let wait = here.lock("product:1").template("purchase").wait(Duration::from_secs(10));
        wait.acquire().await.expect_err("busy");
        held.release().await.expect("held");
        let contention = here.contention();
        let elsewhere = HolderSite::Elsewhere("shop::take_stock".to_owned());
        assert_eq!(contention.blame[0].holder, elsewhere, "{contention:?}");
        let charged = blamed(&contention.blame, "shop::take_stock").saturating_sub(before);
        assert!(within_5_percent(charged, Duration::from_secs(10)), "{contention:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_not_asked_if_the_registry_says_so() {
    let store = Memory::new();
    let there = on(&store);
    let here = Registry::builder().backend("shop", store).asks_who_holds(false).build();
    let here = here.expect("a registry");
    let _held = there.lock("product:1").acquire().await.expect("free");
    here.lock("product:1").wait(Duration::from_secs(10)).acquire().await.expect_err("busy");
    let contention = here.contention();
    assert_eq!(contention.blame[0].holder, HolderSite::Unknown, "{contention:?}");
}

#[tokio::test(start_paused = true)]
async fn sets_and_fair_calls_are_charged() {
    let locks = on(&Memory::new());
    let held = locks.lock("product:2").template("stock-taking").acquire().await.expect("free");
    let wait = Duration::from_secs(10);
    let set = locks.lock_all(["product:1", "product:2"]).template("move").wait(wait);
    set.acquire().await.expect_err("busy");
    let fair = locks.lock("product:2").template("purchase").fair(true).wait(wait);
    fair.acquire().await.expect_err("busy");
    held.release().await.expect("held");
    let contention = locks.contention();
    for waiter in ["move", "purchase"] {
        let of = contention.blame.iter().filter(|one| one.waiter == waiter);
        let waited: Duration = of.map(|one| one.waited).sum();
        assert!(within_5_percent(waited, wait), "{waiter}: {contention:?}");
    }
}

/// The store knows the first hold of the lease and the last token of its block. The process knows the hold of the moment.
#[tokio::test]
async fn inspect_shows_the_present_hold_of_a_lease_that_is_passed_on() {
    let store = Memory::new();
    let (locks, other) = (on(&store), on(&store));
    let first = locks.lock("k").label("first").acquire().await.expect("free");
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
    let lock = |label| locks.lock("k").label(label).wait(Duration::from_mins(1));
    let second = tokio::spawn(lock("second").run(async {}));
    let third = tokio::spawn(lock("third").run(async move {
        entered.send(()).expect("it is awaited");
        may_go_on.await.expect("it is told");
    }));
    while locks.contention().waiting.iter().map(|waiting| waiting.count).sum::<usize>() < 2 {
        tokio::task::yield_now().await;
    }
    first.release().await.expect("held");
    has_entered.await.expect("it enters");
    let seen = |state: Option<Holder>| {
        let holder = state.expect("it is held");
        (holder.client_info.expect("dlock's").label().to_owned(), holder.shown_by, holder.token)
    };
    let (label, shown_by, token) = seen(locks.lock("k").inspect().await.expect("an answer"));
    assert_eq!((&*label, shown_by), ("third", ShownBy::ThisProcess));
    let listed = locks.inspect("k").await.expect("an answer").remove(0).holders.pop();
    assert_eq!(seen(listed), (label, shown_by, token));
    let (label, shown_by, largest) = seen(other.lock("k").inspect().await.expect("an answer"));
    assert_eq!((&*label, shown_by), ("second", ShownBy::Store));
    assert!(largest > token);
    go_on.send(()).expect("it waits");
    for task in [second, third] {
        task.await.expect("it ends").expect("free in time");
    }
}

/// A task that holds without a turn in the local queue says that it has released the key, too.
#[tokio::test(start_paused = true)]
async fn a_fair_holder_is_not_blamed_after_its_release() {
    let store = Memory::new();
    let (here, there) = (on(&store), on(&store));
    let fair = |locks: &Registry, label: &'static str| {
        locks.lock("k").fair(true).label(label).wait(Duration::from_mins(1))
    };
    let first = fair(&here, "first").acquire().await.expect("free");
    let elsewhere = tokio::spawn(fair(&there, "elsewhere").run(sleep(Duration::from_secs(20))));
    sleep(MILLISECOND * 10).await;
    let last = tokio::spawn(fair(&here, "last").run(async {}));
    sleep(Duration::from_secs(1)).await;
    first.release().await.expect("held");
    elsewhere.await.expect("it ends").expect("free in time");
    last.await.expect("it ends").expect("free in time");
    let blame = here.contention().blame;
    assert!(blamed(&blame, "first") < Duration::from_secs(2), "{blame:?}");
    assert!(blamed(&blame, "elsewhere") > Duration::from_secs(18), "{blame:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_blamed_itself() {
    let store = Intercepted::new(Memory::new());
    let locks = Registry::builder().backend("shop", store.clone()).build().expect("a registry");
    let there = Registry::builder().backend("shop", store.clone()).build().expect("a registry");
    let held = there.lock("k").ttl(Duration::from_hours(1)).acquire().await.expect("free");
    let waiter = tokio::spawn(locks.lock("k").wait(Duration::from_mins(1)).run(async {}));
    sleep(Duration::from_secs(5)).await;
    store.fail(Call::Acquire);
    sleep(Duration::from_secs(20)).await;
    store.heal();
    sleep(Duration::from_secs(5)).await;
    held.release().await.expect("held");
    waiter.await.expect("it ends").expect("free");
    let blame = locks.contention().blame;
    let down = blamed(&blame, HolderSite::Store.name());
    assert!((17..23).contains(&down.as_secs()), "{blame:?}");
}
