//! A drain gives bodies time to end, then stops them. Their locks are released at once.

use std::future::ready;

use dlock_runtime::DrainLimits;

use super::*;

#[tokio::test(start_paused = true)]
async fn bodies_end_in_their_grace_and_no_new_lock_is_acquired() {
    let locks = on(Memory::new());
    let nested = locks.clone();
    let body = locks.lock("k").run(async move {
        sleep(SECOND * 5).await;
        nested.lock("k").run(async {}).await.expect("a nested call enters");
    });
    let body = tokio::spawn(body);
    let waiter = tokio::spawn(locks.lock("k").wait(Wait::Forever).run(async {}));
    sleep(SECOND).await;
    let began = Instant::now();
    let drain = locks.drain(ready(()), DrainLimits::new(SECOND * 20));
    let late = async {
        tokio::task::yield_now().await;
        locks.lock("other").acquire().await
    };
    let (drained, late) = tokio::join!(drain, late);
    drained.expect("all locks are free");
    assert_eq!(began.elapsed(), SECOND * 4);
    body.await.expect("it ends").expect("it completed");
    assert!(matches!(late, Err(LockError::ShutDown { began: false, .. })));
    assert!(matches!(waiter.await.expect("it ends"), Err(LockError::ShutDown { .. })));
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_end_are_stopped_and_their_locks_are_free() {
    let store = Memory::new();
    let (locks, other) = (on(store.clone()), on(store));
    let bodies = [OnLost::Cancel, OnLost::Finish, OnLost::Keep].map(|on_lost| {
        tokio::spawn(locks.lock(format!("{on_lost:?}")).on_lost(on_lost).run(pending::<()>()))
    });
    let guard = locks.lock("bare").acquire().await.expect("free");
    let watched = tokio::spawn(async move {
        let ended = guard.lost().await;
        guard.release().await.expect("it was still held");
        ended
    });
    sleep(SECOND).await;
    let began = Instant::now();
    locks.drain(ready(()), DrainLimits::new(SECOND * 3)).await.expect("all locks are free");
    assert_eq!(began.elapsed(), SECOND * 3);
    for body in bodies {
        let ended = body.await.expect("it ends");
        assert!(matches!(ended, Err(LockError::ShutDown { began: true, .. })), "{ended:?}");
    }
    assert!(matches!(watched.await.expect("it ends"), LockError::ShutDown { .. }));
    for key in ["Cancel", "Finish", "Keep", "bare"] {
        other.lock(key).wait(Duration::ZERO).run(async {}).await.expect("free");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_stops_nobody_reports_what_is_left() {
    let locks = on(Memory::new());
    let body = tokio::spawn(locks.lock("k").run(sleep(SECOND * 10)));
    sleep(SECOND).await;
    let limits = DrainLimits::new(SECOND).without_stopping();
    let drained = locks.drain(ready(()), limits).await;
    assert_eq!(drained.expect_err("a body still runs").left, 1);
    body.await.expect("it ends").expect("it completed");
    locks.drain(ready(()), limits).await.expect("all locks are free");
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_signal() {
    let locks = on(Memory::new());
    let drain = locks.drain(sleep(SECOND), DrainLimits::new(SECOND));
    let use_it = async {
        locks.lock("k").run(async {}).await.expect("not shut down yet");
        sleep(SECOND * 2).await;
        locks.lock("k").run(async {}).await.expect_err("shut down");
    };
    tokio::join!(drain, use_it).0.expect("all locks are free");
}

/// A body in a stretch without an await cannot be stopped. Its lock stays held, and the drain says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_blocks_keeps_its_lock() {
    let locks = on(Memory::new());
    let (running, is_running) = tokio::sync::oneshot::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let body = tokio::spawn(locks.lock("k").run(async move {
        running.send(()).expect("it is awaited");
        wait.recv().expect("it is told");
        tokio::task::yield_now().await;
    }));
    is_running.await.expect("it runs");
    let limits = DrainLimits::new(Duration::ZERO).release_within(SECOND / 10);
    assert_eq!(locks.drain(ready(()), limits).await.expect_err("it blocks").left, 1);
    go_on.send(()).expect("it waits");
    assert!(matches!(body.await.expect("it ends"), Err(LockError::ShutDown { .. })));
    locks.shutdown(SECOND * 5).await.expect("all locks are free");
}

/// They go on after their leases have ended, and are stopped all the same.
#[tokio::test(start_paused = true)]
async fn bodies_that_have_lost_their_locks_are_stopped_too() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let bodies = [OnLost::Finish, OnLost::Keep].map(|on_lost| {
        let lock = locks.lock(format!("{on_lost:?}")).ttl(SECOND).on_lost(on_lost);
        tokio::spawn(lock.run(pending::<()>()))
    });
    store.fail(Call::Renew);
    sleep(SECOND * 5).await;
    let began = Instant::now();
    locks.drain(ready(()), DrainLimits::new(SECOND * 3)).await.expect("all have ended");
    assert_eq!(began.elapsed(), SECOND * 3);
    for body in bodies {
        let ended = body.await.expect("it ends");
        assert!(matches!(ended, Err(LockError::Lost { .. })), "{ended:?}");
    }
}
