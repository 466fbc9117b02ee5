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
