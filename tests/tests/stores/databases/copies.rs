//! An acquire that is resent over another connection: its first copy may be executed at any later time.

use std::time::Duration;

use dlock_runtime::{LockError, Mode, Registry};
use dlock_tests::late::LateProxy;

use super::both::{Database, Options, backend};
use crate::steps::{acquire, registry};

/// Abandoned claims are undone within this time.
const UNDOING: Duration = Duration::from_secs(20);

async fn over<D: Database>(proxy: &LateProxy, server: &D) -> D::Backend {
    let url = server.url_by(proxy.port());
    D::connect(Options { connections: 1, ..Options::new(url) }).await.expect("it runs")
}

async fn assert_free(registry: &Registry, key: &str) {
    let answer = registry.lock(key).wait(Duration::ZERO).acquire().await;
    answer.expect("nobody holds it").release().await.expect("held");
}

pub async fn the_first_copy_of_a_resent_acquire_grants_nothing_late<D: Database>() {
    let server = D::start();
    let mut between = LateProxy::start(server.port()).await;
    let registry = registry(over(&between, &server).await);
    acquire(&registry, "k").await.release().await.expect("held");

    between.keep_next(D::ACQUIRE);
    let guard = acquire(&registry, "k").await;
    let first = between.kept().await;
    guard.release().await.expect("held to the end");
    first.deliver().await;
    assert_free(&registry, "k").await;
}

/// The second copy was answered "busy". The first copy is executed once the key is free.
pub async fn the_first_copy_of_an_abandoned_acquire_grants_nothing_late<D: Database>() {
    let server = D::start();
    let holder = registry(backend(&server).await);
    let mut between = LateProxy::start(server.port()).await;
    let waiter = registry(over(&between, &server).await);
    acquire(&waiter, "k").await.release().await.expect("held");

    let held = acquire(&holder, "k").await;
    between.keep_next(D::ACQUIRE);
    let answer = waiter.lock("k").wait(Duration::ZERO).acquire().await;
    assert!(answer.as_ref().is_err_and(LockError::is_busy), "{answer:?}");
    let first = between.kept().await;
    held.release().await.expect("held to the end");
    waiter.shutdown(UNDOING).await.expect("the acquire is undone");
    first.deliver().await;
    assert_free(&holder, "k").await;
}

/// The acquire could not be resent for lack of a connection and failed, but its first copy was sent.
pub async fn the_only_copy_of_a_failed_acquire_grants_nothing_late<D: Database>() {
    let server = D::start();
    let holder = registry(backend(&server).await);
    let mut between = LateProxy::start(server.port()).await;
    let over_proxy = over(&between, &server).await;
    // One statement acquires a single exclusive key. For readers and sets, rows are read first, and changed only
    // if they are still the same.
    for (wanted, part) in [
        (Wanted::Alone, D::ACQUIRE),
        (Wanted::Shared, "lock_group = "),
        (Wanted::Set, "lock_group = "),
    ] {
        let waiter = registry(over_proxy.clone());
        // Creates the rows and opens the pool's connection.
        acquire(&waiter, "k").await.release().await.expect("held");
        acquire(&waiter, "l").await.release().await.expect("held");

        between.refuse_connections(true);
        between.keep_next(part);
        let answer = wanted.try_acquire(&waiter).await;
        assert!(matches!(answer, Err(LockError::Backend { .. })), "{wanted:?}: {answer:?}");
        let first = between.kept().await;
        between.refuse_connections(false);
        waiter.shutdown(UNDOING).await.expect("the acquire is undone");
        first.deliver().await;
        assert_free(&holder, "k").await;
        assert_free(&holder, "l").await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Alone,
    Shared,
    Set,
}

impl Wanted {
    async fn try_acquire(self, registry: &Registry) -> Result<(), LockError> {
        match self {
            Self::Alone => registry.lock("k").wait(Duration::ZERO).acquire().await.map(drop),
            Self::Shared => {
                registry.lock("k").mode(Mode::Shared).wait(Duration::ZERO).acquire().await.map(drop)
            }
            Self::Set => {
                registry.lock_all(["k", "l"]).wait(Duration::ZERO).acquire().await.map(drop)
            }
        }
    }
}
