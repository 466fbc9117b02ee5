//! Tasks that are spawned under a lock stop when its hold ends, and the lock is released after they have stopped.

use std::sync::mpsc;

use super::*;

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn endless() -> (impl Future<Output = ()> + Send + 'static, Arc<AtomicBool>) {
    let is_dropped = Arc::new(AtomicBool::new(false));
    let dropped = Dropped(Arc::clone(&is_dropped));
    let future = async move {
        let _dropped = dropped;
        pending::<()>().await;
    };
    (future, is_dropped)
}

#[tokio::test(start_paused = true)]
async fn a_task_stops_when_the_lock_is_lost() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard = locks.lock("k").ttl(SECOND).acquire().await.expect("free");
    let polls = Arc::new(AtomicUsize::new(0));
    let ticks = {
        let polls = Arc::clone(&polls);
        async move {
            loop {
                sleep(SECOND / 50).await;
                polls.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let task = guard.spawn(ticks);
    let token = guard.cancellation_token();
    store.fail(Call::Renew);
    guard.lost().await;
    let polled = polls.load(Ordering::SeqCst);
    assert!(polled > 10);
    assert!(token.is_cancelled());
    assert_eq!(task.await.expect("it ends"), None::<()>);
    assert_eq!(polls.load(Ordering::SeqCst), polled, "polled after the loss");
    guard.release().await.expect_err("lost");
}

#[tokio::test(start_paused = true)]
async fn a_release_stops_the_tasks_first() {
    let locks = on(Memory::new());
    let guard = locks.lock("k").acquire().await.expect("free");
    let (future, is_dropped) = endless();
    let (task, token) = (guard.spawn(future), guard.cancellation_token());
    let done = guard.spawn(async { 7 });
    assert_eq!(done.await.expect("it ends"), Some(7));
    assert!(!token.is_cancelled());
    guard.release().await.expect("held");
    assert!(is_dropped.load(Ordering::SeqCst) && token.is_cancelled());
    assert_eq!(task.await.expect("it ends"), None);
}

/// The task is in a stretch without an await, which nobody can stop. The lock is renewed until it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_lock_is_released_after_a_task_that_cannot_be_stopped_at_once() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard = locks.lock("k").ttl(SECOND / 5).acquire().await.expect("free");
    let (running, is_running) = tokio::sync::oneshot::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let task = guard.spawn(async move {
        running.send(()).expect("it is awaited");
        wait.recv().expect("it is told");
    });
    is_running.await.expect("it runs");
    let releasing = tokio::spawn(guard.release());
    // More than one ttl: without renewals, the lease would have ended.
    let renewals = store.count(Call::Renew);
    let renewed = async {
        while store.count(Call::Renew) < renewals + 4 {
            sleep(SECOND / 100).await;
        }
    };
    timeout(SECOND * 20, renewed).await.expect("the lease is renewed");
    assert!(!releasing.is_finished() && store.count(Call::Release) == 0);
    locks.lock("k").wait(Duration::ZERO).acquire().await.expect_err("still held");
    go_on.send(()).expect("it waits");
    releasing.await.expect("it ends").expect("held");
    task.await.expect("it ends");
    locks.lock("k").wait(Duration::ZERO).run(async {}).await.expect("free");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_guard_or_its_release_stops_the_tasks_and_releases_the_lock() {
    let locks = on(Memory::new());
    for release in [false, true] {
        let guard = locks.lock("k").acquire().await.expect("free");
        let (future, is_dropped) = endless();
        let task = guard.spawn(future);
        let token = guard.cancellation_token();
        if release {
            // Polled once: it waits for the task.
            let mut releasing = Box::pin(guard.release());
            assert!(futures_util::poll!(releasing.as_mut()).is_pending());
        } else {
            drop(guard);
        }
        assert_eq!(task.await.expect("it ends"), None);
        assert!(is_dropped.load(Ordering::SeqCst) && token.is_cancelled());
        locks.lock("k").wait(SECOND).run(async {}).await.expect("free soon");
    }
    locks.shutdown(SECOND).await.expect("nothing is held");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_polled_under_a_hold_that_has_ended() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard = locks.lock("k").ttl(SECOND).acquire().await.expect("free");
    store.fail(Call::Renew);
    guard.lost().await;
    let late = guard.spawn(async { unreachable!("the lock is lost") });
    assert_eq!(late.await.expect("no panic"), None::<()>);
    assert!(guard.cancellation_token().is_cancelled());
}

#[distributed_lock(key = "report", guard = lock)]
async fn report(is_dropped: Arc<AtomicBool>) -> Result<(), LockError> {
    let dropped = Dropped(is_dropped);
    lock.spawn(async move {
        let _dropped = dropped;
        pending::<()>().await;
    });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_task_does_not_outlive_the_body_that_spawned_it() {
    let locks = on(Memory::new());
    let is_dropped = Arc::new(AtomicBool::new(false));
    locks.scope(report(Arc::clone(&is_dropped))).await.expect("free");
    assert!(is_dropped.load(Ordering::SeqCst));
    locks.lock("report").wait(Duration::ZERO).run(async {}).await.expect("free");
}

/// A cancelled token of one caller is no concern of others.
#[tokio::test(start_paused = true)]
async fn cancelling_a_token_ends_nothing_else() {
    let locks = on(Memory::new());
    let guard = locks.lock("k").acquire().await.expect("free");
    let task = guard.spawn(async { tokio::task::yield_now().await });
    guard.cancellation_token().cancel();
    assert_eq!(task.await.expect("it ends"), Some(()));
    assert!(guard.is_held() && !guard.cancellation_token().is_cancelled());
    guard.release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn states_show_a_risk_before_a_loss() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let guard = locks.lock("k").ttl(SECOND * 10).acquire().await.expect("free");
    let mut states = guard.states();
    assert_eq!(states.next().await, Some(HoldState::Held));
    let began = Instant::now();
    store.fail(Call::Renew);
    let risk = states.next().await;
    assert!(
        matches!(risk, Some(HoldState::AtRisk { remaining }) if remaining > SECOND * 4),
        "{risk:?}"
    );
    assert!(began.elapsed() < SECOND * 6);
    store.heal();
    assert_eq!(states.next().await, Some(HoldState::Held));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(guard.state(), HoldState::Held);
    store.fail(Call::Renew);
    assert!(matches!(states.next().await, Some(HoldState::AtRisk { .. })));
    let lost = HoldState::Lost { reason: LostReason::Expired };
    assert_eq!((states.next().await, states.next().await), (Some(lost), None));
}

/// The guard is dropped on another runtime than the one that renews its lease, and that runtime is shutting down.
#[test]
fn a_guard_that_is_dropped_with_another_runtime_is_released() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    };
    let (home, other) = (runtime(), runtime());
    let locks = on(Memory::new());
    let (guard, task) = home.block_on(async {
        let guard = locks.lock("k").acquire().await.expect("free");
        let task = guard.spawn(pending::<()>());
        (guard, task)
    });
    other.spawn(async move {
        let _guard = guard;
        pending::<()>().await;
    });
    drop(other);
    home.block_on(async {
        assert_eq!(task.await.expect("it ends"), None);
        locks.lock("k").wait(SECOND * 5).run(async {}).await.expect("free soon");
    });
}
