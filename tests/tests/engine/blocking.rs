//! Locks for code without async.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dlock_runtime::backend::{Backend, Memory};
use dlock_runtime::blocking::Blocking;
use dlock_runtime::testing::{Call, Intercepted};
use dlock_runtime::{LockError, Registry};

const TIMEOUT: Duration = Duration::from_secs(20);

fn on(store: impl Backend) -> Blocking {
    let connect = async move { Registry::builder().backend("store", store).build() };
    Blocking::start(async { connect.await.map_err(io::Error::other) }).expect("a thread")
}

#[test]
fn threads_exclude_each_other() {
    let locks = on(Memory::new());
    let (inside, mut tokens) = (Arc::new(AtomicBool::new(false)), vec![]);
    let threads = [(); 8].map(|()| {
        let (locks, inside) = (locks.clone(), Arc::clone(&inside));
        thread::spawn(move || {
            let once = || {
                let lock = locks.lock("k").wait(TIMEOUT);
                locks.run(lock, |guard| {
                    assert!(!inside.swap(true, Ordering::SeqCst), "two holders");
                    thread::yield_now();
                    inside.store(false, Ordering::SeqCst);
                    guard.fencing_token()
                })
            };
            (0..200).map(|_| once().expect("free in time")).collect::<Vec<_>>()
        })
    });
    for thread in threads {
        let drawn = thread.join().expect("no panic");
        assert!(drawn.is_sorted(), "tokens grow");
        tokens.extend(drawn);
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 1_600, "each hold has its own token");
    locks.shutdown(TIMEOUT).expect("nothing is held");
}

#[test]
fn a_lease_is_renewed_while_its_thread_works() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let ttl = Duration::from_millis(200);
    let guard = locks.acquire(locks.lock("k").ttl(ttl)).expect("free");
    let began = Instant::now();
    while store.count(Call::Renew) < 5 {
        assert!(began.elapsed() < TIMEOUT, "the lease is not renewed");
        thread::sleep(ttl / 20);
    }
    guard.check().expect("held");
    guard.extend(ttl).expect("held");
    guard.release().expect("held to the end");
}

#[test]
fn a_loss_is_noticed_by_a_check_and_by_the_end() {
    let store = Intercepted::new(Memory::new());
    let locks = on(store.clone());
    let lock = locks.lock("k").ttl(Duration::from_millis(100));
    let ended = locks.run(lock, |guard| {
        store.fail(Call::Renew);
        let began = Instant::now();
        while guard.check().is_ok() {
            assert!(began.elapsed() < TIMEOUT, "the loss is not noticed");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(guard.remaining().is_zero());
    });
    assert!(matches!(ended, Err(LockError::Lost { completed: true, .. })), "{ended:?}");
}

#[test]
fn a_dropped_guard_and_a_panic_release_the_lock() {
    let locks = on(Memory::new());
    drop(locks.acquire(locks.lock("k")).expect("free"));
    let again = locks.clone();
    let panicked = thread::spawn(move || {
        let lock = again.lock("k").wait(TIMEOUT);
        again.run(lock, |_| panic!("an expected panic of a body"))
    });
    panicked.join().expect_err("it panics");
    locks.run(locks.lock("k").wait(TIMEOUT), |_| ()).expect("free soon");
    locks.shutdown(TIMEOUT).expect("nothing is held");
}

/// A guard that outlives its registry still renews and releases its lock.
#[test]
fn the_thread_lives_as_long_as_the_last_guard() {
    let store = Memory::new();
    let (locks, other) = (on(store.clone()), on(store));
    let guard = locks.acquire(locks.lock("k")).expect("free");
    drop(locks);
    let busy = other.acquire(other.lock("k").wait(Duration::ZERO));
    assert!(matches!(busy, Err(LockError::Busy { .. })), "{busy:?}");
    guard.release().expect("held");
    other.run(other.lock("k").wait(Duration::ZERO), |_| ()).expect("free");
}

#[test]
fn the_thread_ends_with_the_last_of_them() {
    struct Dropped(mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, ended) = mpsc::channel();
    let dropped = Dropped(sender);
    let locks = Blocking::start(async move {
        // It lives on the runtime of that thread.
        tokio::spawn(async move {
            let _dropped = dropped;
            std::future::pending::<()>().await;
        });
        Registry::builder().backend("store", Memory::new()).build().map_err(io::Error::other)
    });
    let locks = locks.expect("a thread");
    let guard = locks.acquire(locks.lock("k")).expect("free");
    drop(locks);
    assert!(ended.try_recv().is_err(), "a guard is left");
    drop(guard);
    ended.recv_timeout(TIMEOUT).expect("the runtime ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_of_an_async_service_serves_threads_too() {
    let registry = Registry::builder().backend("store", Memory::new()).build().expect("a registry");
    let held = registry.lock("k").acquire().await.expect("free");
    let locks = registry.blocking().expect("a thread");
    let (was_busy, is_busy) = tokio::sync::oneshot::channel();
    let thread = tokio::task::spawn_blocking(move || {
        let busy = locks.run(locks.lock("k").wait(Duration::ZERO), |_| ());
        was_busy.send(busy).expect("it is awaited");
        locks.run(locks.lock("k").wait(TIMEOUT), |_| ())
    });
    let busy = is_busy.await.expect("it answers");
    assert!(matches!(busy, Err(LockError::Busy { .. })), "{busy:?}");
    held.release().await.expect("held");
    thread.await.expect("no panic").expect("free in time");
}

#[test]
fn a_failure_to_connect_is_reported() {
    let refused = Blocking::start(async { Err(io::Error::other("no store")) });
    assert_eq!(refused.expect_err("it failed").to_string(), "no store");
}
