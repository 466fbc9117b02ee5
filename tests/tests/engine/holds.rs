//! What a hold guarantees while it lasts, while it ends, and afterwards. The tests use the memory
//! backend, mostly with time paused so that the assertions are exact.

#![expect(clippy::async_yields_async, reason = "a task begun under a lock is awaited after it")]

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use dlock_runtime::backend::{Backend, Memory};
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{BackendError, LockError, LostReason, OnLost, Registry, distributed_lock};
use futures_util::future::{FutureExt, join_all, poll_fn};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, advance, sleep, timeout};

use self::stores::{Fate, Renewals, Unreachable};

mod stores;

fn on(store: impl Backend) -> Registry {
    Registry::builder().backend("store", store).build().expect("a registry")
}

fn outer_closed(ended: &Result<(), LockError>) -> bool {
    matches!(ended, Err(LockError::Lost { reason: LostReason::OuterClosed, completed: false, .. }))
}

mod nested {
    use super::*;

    /// A body that records whether it is polled while another registry holds the key.
    async fn watched(others: Arc<AtomicBool>, overlap: Arc<AtomicBool>) {
        poll_fn(|cx| {
            overlap.fetch_or(others.load(Ordering::SeqCst), Ordering::SeqCst);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn a_nested_body_polled_outside_ends_with_its_outer_hold() {
        let store = Memory::new();
        let (locks, other) = (on(store.clone()), on(store));
        let (others, overlap) = (Arc::default(), Arc::default());
        let body = watched(Arc::clone(&others), Arc::clone(&overlap));
        // Its own policy would let it finish.
        let mut inner = pin!(locks.lock("k").on_lost(OnLost::Finish).run(body));
        let outer = locks.lock("k").run(async {
            assert!(inner.as_mut().now_or_never().is_none(), "it entered and is still running");
        });
        outer.await.expect("free");
        let _held = other.lock("k").wait(Duration::ZERO).acquire().await.expect("free again");
        others.store(true, Ordering::SeqCst);
        let ended = timeout(Duration::from_secs(5), inner).await.expect("it ends");
        assert!(outer_closed(&ended), "{ended:?}");
        assert!(!overlap.load(Ordering::SeqCst), "polled while another registry held the key");
    }

    #[tokio::test]
    async fn a_nested_body_polled_by_another_task_is_woken_when_its_outer_hold_closes() {
        let locks = on(Memory::new());
        let inner = locks.lock("k").on_lost(OnLost::Keep).run(pending::<()>());
        let inner = inner.map(Arc::new).boxed().shared();
        let entered = inner.clone();
        let outer = locks.lock("k").run(async {
            assert!(entered.clone().now_or_never().is_none());
            let waiter = tokio::spawn(entered.clone());
            tokio::task::yield_now().await;
            waiter
        });
        let waiter = outer.await.expect("free");
        let ended = timeout(Duration::from_secs(5), waiter).await.expect("it is woken");
        assert!(outer_closed(&ended.expect("no panic")));
        drop(inner);
    }

    #[tokio::test]
    async fn nested_bodies_in_a_collection_end_when_the_outer_call_is_dropped() {
        let locks = on(Memory::new());
        let mut inside = FuturesUnordered::new();
        for _ in 0..3 {
            let lock = locks.lock("k").mode(dlock_runtime::Mode::Shared);
            inside.push(lock.run(pending::<()>()));
        }
        {
            let outer = locks.lock("k").run(async {
                let _ = poll_fn(|cx| Poll::Ready(inside.poll_next_unpin(cx).is_ready())).await;
                pending::<()>().await;
            });
            assert!(pin!(outer).now_or_never().is_none());
        }
        for _ in 0..3 {
            let ended = timeout(Duration::from_secs(5), inside.next()).await.expect("it ends");
            let ended = ended.expect("three");
            assert!(outer_closed(&ended), "{ended:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_nested_in_a_closed_nested_body_ends_while_the_outermost_continues() {
        let locks = on(Memory::new());
        let mut innermost = pin!(locks.lock("k").run(pending::<()>()));
        locks
            .lock("k")
            .run(async {
                let middle = locks.lock("k").run(async {
                    assert!(innermost.as_mut().now_or_never().is_none());
                });
                middle.await.expect("nested");
                // A sibling is inside now, so the nested body from before must not be.
                let sibling = locks.lock("k").run(async {
                    let ended = innermost.as_mut().await;
                    assert!(outer_closed(&ended), "{ended:?}");
                });
                sibling.await.expect("the sibling may enter");
            })
            .await
            .expect("free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_to_nest_ends_when_the_outer_hold_closes() {
        let locks = on(Memory::new());
        let mut first = Box::pin(locks.lock("k").run(pending::<()>()));
        let mut second = Box::pin(locks.lock("k").run(async { unreachable!("it never enters") }));
        let outer = locks.lock("k").run(async {
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
        });
        outer.await.expect("free");
        let began = Instant::now();
        let ended = second.await;
        assert!(outer_closed(&ended), "{ended:?}");
        assert!(outer_closed(&first.await));
        assert_eq!(began.elapsed(), Duration::ZERO, "it ended without a delay");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_inside_a_body_that_outlived_another_lock_acquires_its_own_lease() {
        let store = Memory::new();
        let locks = on(store.clone());
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let mut b = pin!(locks.lock("b").run(async {
            gone.await.expect("sent");
            let a = locks.lock("a").run(async {
                let other = on(store.clone()).lock("a").wait(Duration::ZERO).acquire().await;
                assert!(matches!(other, Err(LockError::Busy { .. })), "{other:?}");
            });
            a.await.expect("`a` is free");
        }));
        // `b` begins inside `a`, and outlives it.
        let a = locks.lock("a").run(async { assert!(b.as_mut().now_or_never().is_none()) });
        a.await.expect("free");
        go.send(()).expect("received");
        b.await.expect("held all the time");
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_nests_in_a_body_whose_outer_hold_closed_while_it_was_polled() {
        let locks = on(Memory::new());
        let mut inner = Box::pin(locks.lock("k").run(poll_fn({
            let locks = locks.clone();
            let mut outer_is_gone = false;
            move |_| {
                if !outer_is_gone {
                    outer_is_gone = true;
                    return Poll::Pending;
                }
                // If it were polled again, the call could not even nest.
                let nested = locks.lock("k").run(async {}).now_or_never();
                panic!("polled after its outer hold had closed: {nested:?}")
            }
        })));
        let outer = locks.lock("k").run(async {
            assert!(inner.as_mut().now_or_never().is_none());
        });
        outer.await.expect("free");
        let ended: Result<(), _> = inner.await;
        assert!(outer_closed(&ended), "{ended:?}");
    }
}

mod after_a_loss {
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
}

mod sets {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_waiting_set_leaves_its_free_keys_to_others() {
        let store = Memory::new();
        let (locks, other) = (on(store.clone()), on(store));
        let busy = other.lock("b").acquire().await.expect("free");
        let set = locks.lock_all(["a", "b", "c"]).wait(Duration::from_mins(1));
        let mut waiting = pin!(set.acquire());
        tokio::select! {
            _ = waiting.as_mut() => panic!("`b` is busy"),
            () = sleep(Duration::from_secs(2)) => {}
        }
        for key in ["a", "c"] {
            let free = locks.lock(key).wait(Duration::ZERO).acquire();
            let free = tokio::select! {
                _ = waiting.as_mut() => panic!("`b` is busy"),
                free = free => free,
            };
            free.expect("free in the store").release().await.expect("held");
        }
        busy.release().await.expect("held");
        waiting.await.expect("all are free").release().await.expect("held");
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_waits_for_a_local_holder_leaves_its_free_keys_to_others() {
        let locks = on(Memory::new());
        let held = locks.lock("b").run(async {
            let set = locks.lock_all(["a", "b"]).wait(Duration::from_mins(1)).acquire();
            let set = tokio::spawn(set);
            sleep(Duration::from_secs(1)).await;
            // In reverse key order: if the set held `a` while waiting, this would deadlock.
            let a = locks.lock("a").wait(Duration::ZERO).acquire().await;
            a.expect("free in the store").release().await.expect("held");
            set
        });
        let set = held.await.expect("free").await.expect("no panic");
        set.expect("both are free").release().await.expect("held");
    }

    #[tokio::test]
    async fn many_overlapping_sets_of_one_process_are_all_acquired() {
        let locks = on(Memory::new());
        let tasks = (0..200_usize).map(|task| {
            let locks = locks.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let keys = [0, 1, 3].map(|step| format!("k{}", (task + round * step) % 7));
                    let set = locks.lock_all(keys).wait(Duration::from_mins(1));
                    let set = set.acquire().await.expect("in turn");
                    tokio::task::yield_now().await;
                    set.release().await.expect("held");
                }
            })
        });
        for task in join_all(tasks).await {
            task.expect("no panic");
        }
    }
}

mod failures {
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
                assert!(
                    matches!(outcome, Err(LockError::Backend { .. })),
                    "{store:?}: {outcome:?}"
                );
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
}

mod releasing {
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
            on(Renewals::new(
                |key, _| {
                    if key.as_str() == "bad" { Fate::Panic } else { Fate::Passed }
                },
            ));
        let ttl = Duration::from_secs(3);
        let good = locks.lock("good").ttl(ttl).acquire().await.expect("free");
        let bad = locks.lock("bad").ttl(ttl).run(pending::<()>());
        let ended = timeout(Duration::from_secs(30), bad).await.expect("it ends");
        assert!(matches!(ended, Err(LockError::Lost { .. })), "{ended:?}");
        assert!(good.is_held(), "another hold is still renewed");
        good.release().await.expect("held");
        locks.shutdown(Duration::from_secs(30)).await.expect("nothing is held");
    }
}

mod durations {
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
}

mod renewals {
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
}

#[test]
fn backend_errors_can_be_cloned_for_many_callers() {
    let one = BackendError::transient("down").with_source(std::io::Error::other("cable"));
    let other = one.clone();
    assert!(other.is_transient() && other.may_have_been_sent());
    assert_eq!(other.to_string(), "down");
    assert_eq!(std::error::Error::source(&other).expect("kept").to_string(), "cable");
    assert!(!one.clone().not_sent().may_have_been_sent() && one.may_have_been_sent());
}
