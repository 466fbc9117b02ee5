//! What the attribute's expansion must not do to the code around it: run early, drop late, make
//! futures large, lose `Send`, or clash with the user's names.

#![forbid(unsafe_code)]
#![deny(warnings, clippy::pedantic)]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, LockGuard, Registry, distributed_lock};

mod drops;
mod names;

fn registry() -> Registry {
    let builder = Registry::builder().backend("memory", Memory::new()).default_backend("memory");
    builder.build().expect("a registry")
}

/// A source of a key that records each request for it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn key(&self) -> &'static str {
        self.note("key");
        "lazy"
    }
}

mod lazy {
    use super::*;

    #[distributed_lock(key = log.key())]
    pub(super) async fn expression(log: &Log) -> Result<(), LockError> {
        log.note("body");
        Ok(())
    }

    #[distributed_lock(key = "<log.key()>")]
    pub(super) async fn template(log: &Log) -> Result<(), LockError> {
        log.note("body");
        Ok(())
    }

    #[distributed_lock(key = "<log.key()>")]
    pub(super) fn opaque(log: &Log) -> impl Future<Output = Result<(), LockError>> {
        log.note("before the future");
        async {
            log.note("body");
            Ok(())
        }
    }

    #[distributed_lock(key = "<log.key()>")]
    pub(super) fn boxed(log: &Log) -> futures_util::future::BoxFuture<'_, Result<(), LockError>> {
        log.note("before the future");
        Box::pin(async {
            log.note("body");
            Ok(())
        })
    }

    #[async_trait::async_trait]
    pub(super) trait Service {
        #[distributed_lock(key = "<log.key()>")]
        async fn method(&self, log: &Log) -> Result<(), LockError> {
            log.note("body");
            Ok(())
        }
    }

    impl Service for () {}
}

async fn assert_lazy(
    future: impl Future<Output = Result<(), LockError>>,
    log: &Log,
) -> Vec<String> {
    tokio::task::yield_now().await;
    assert!(log.lines().is_empty(), "ran before the first poll: {:?}", log.lines());
    registry().scope(future).await.expect("the lock is free");
    log.lines()
}

#[tokio::test]
async fn nothing_runs_before_the_first_poll() {
    use lazy::Service;

    let log = Log::default;
    let in_order = ["key", "body"];
    let seen = log();
    assert_eq!(assert_lazy(lazy::expression(&seen), &seen).await, in_order);
    let seen = log();
    assert_eq!(assert_lazy(lazy::template(&seen), &seen).await, in_order);
    let seen = log();
    assert_eq!(assert_lazy(().method(&seen), &seen).await, in_order);
    let in_order = ["key", "before the future", "body"];
    let seen = log();
    assert_eq!(assert_lazy(lazy::opaque(&seen), &seen).await, in_order);
    let seen = log();
    assert_eq!(assert_lazy(lazy::boxed(&seen), &seen).await, in_order);
}

#[tokio::test]
async fn a_future_dropped_before_its_first_poll_leaves_nothing_behind() {
    let log = Log::default();
    drop(lazy::expression(&log));
    drop(lazy::opaque(&log));
    drop(lazy::boxed(&log));
    assert!(log.lines().is_empty());
}

#[distributed_lock(key = "size:<id>")]
async fn innermost(id: u8) -> Result<u8, LockError> {
    let stock = [id; 1024];
    tokio::task::yield_now().await;
    Ok(stock[usize::from(id)])
}

#[distributed_lock(key = "size:<id>")]
async fn middle(id: u8) -> Result<u8, LockError> {
    innermost(id).await
}

#[distributed_lock(key = "size:<id>")]
async fn outermost(id: u8) -> Result<u8, LockError> {
    middle(id).await
}

#[tokio::test]
async fn futures_do_not_grow_with_nesting() {
    let sizes = [size_of_val(&innermost(1)), size_of_val(&middle(1)), size_of_val(&outermost(1))];
    println!("a body of 1 KiB, one to three deep: {sizes:?} bytes");
    assert!(sizes[2] < 2048, "{sizes:?}");
    assert_eq!(registry().scope(outermost(3)).await.unwrap(), 3);
}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[distributed_lock(key = "send:<id>", guard = lock)]
async fn sendable(id: u8, text: String, cell: std::cell::Cell<u8>) -> Result<u8, LockError> {
    let held: &LockGuard = lock;
    tokio::time::sleep(held.remaining().min(Duration::from_millis(1))).await;
    cell.set(cell.get() + id);
    drop(text);
    Ok(cell.get())
}

#[distributed_lock(keys = ["send:<id>", "send:2"], guard = locks)]
async fn sendable_set(id: u8) -> Result<usize, LockError> {
    tokio::task::yield_now().await;
    Ok(locks.holds().len())
}

#[distributed_lock(key = "generic:<value>")]
async fn sendable_generic<T: std::fmt::Display + Send>(value: T) -> Result<T, LockError> {
    tokio::task::yield_now().await;
    Ok(value)
}

#[distributed_lock(key = "local:<id>")]
async fn local(id: std::rc::Rc<u8>) -> Result<u8, LockError> {
    let also = std::rc::Rc::clone(&id);
    tokio::task::yield_now().await;
    Ok(*also)
}

#[tokio::test]
async fn a_future_is_send_when_its_body_is() {
    let task = assert_send(async {
        let sum = sendable(1, String::new(), std::cell::Cell::new(1)).await?;
        sendable_generic(sum).await?;
        sendable_set(1).await
    });
    let held = tokio::spawn(async { registry().scope(task).await }).await.unwrap();
    assert_eq!(held.unwrap(), 2);
}

#[tokio::test]
async fn a_body_that_is_not_send_runs_on_a_local_set() {
    let set = tokio::task::LocalSet::new();
    let task = set.run_until(async {
        tokio::task::spawn_local(async { registry().scope(local(std::rc::Rc::new(7))).await }).await
    });
    assert_eq!(task.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn a_dropped_body_frees_its_key() {
    #[distributed_lock(key = "dropped")]
    async fn never_ends() -> Result<(), LockError> {
        std::future::pending().await
    }

    let registry = registry();
    registry
        .scope(async {
            let mut body = Box::pin(never_ends());
            poll_fn(|cx| {
                assert!(body.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert!(registry.lock("dropped").wait(Duration::ZERO).acquire().await.is_err());
            drop(body);
            let guard = registry.lock("dropped").acquire().await;
            guard.expect("free again").release().await.expect("held to the end");
            let unpolled = pin!(never_ends());
            let _: &_ = &unpolled;
        })
        .await;
}
