//! The server under test, and what its handlers wait for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use dlock_axum::{LockRejection, ScopeLayer, ServeError};
use dlock_runtime::backend::{Backend, Memory};
use dlock_runtime::{DrainLimits, Registry, distributed_lock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than any test takes.
pub(crate) const FOREVER: Duration = Duration::from_hours(1);

/// Where a handler reports that it has begun, and waits until it may end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Notify, Notify)>);

impl Gate {
    pub(crate) async fn entered(&self) {
        within_a_minute(self.0.0.notified()).await;
    }

    pub(crate) fn open(&self) {
        self.0.1.notify_one();
    }

    async fn pass(&self) {
        self.0.0.notify_one();
        self.0.1.notified().await;
    }
}

/// Fails a test that would hang.
pub(crate) async fn within_a_minute<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("no end within a minute")
}

#[distributed_lock(key = "product:<id>", ttl = "10s", wait = "0s")]
async fn purchase(State(gate): State<Gate>, Path(id): Path<u64>) -> Result<String, LockRejection> {
    gate.pass().await;
    Ok(format!("sold product {id}"))
}

#[distributed_lock(key = "product:<id>", ttl = "10s", wait = "forever")]
async fn wait_for(Path(id): Path<u64>) -> Result<String, LockRejection> {
    Ok(format!("waited for product {id}"))
}

/// Does its work outside of the lock first.
async fn prepare(State(gate): State<Gate>, Path(id): Path<u64>) -> Result<String, LockRejection> {
    gate.pass().await;
    wait_for(Path(id)).await
}

/// Holds no lock.
async fn think(State(gate): State<Gate>) -> &'static str {
    gate.pass().await;
    "done"
}

fn app(gate: Gate) -> Router {
    Router::new()
        .route("/purchase/{id}", post(purchase))
        .route("/wait-for/{id}", post(wait_for))
        .route("/prepare/{id}", post(prepare))
        .route("/think", post(think))
        .with_state(gate)
}

/// A server that runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) gate: Gate,
    pub(crate) locks: Registry,
    /// Another process on the same store.
    pub(crate) others: Registry,
    pub(crate) signal: CancellationToken,
    pub(crate) second_signal: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    /// With no limit that could pass during a test.
    pub(crate) async fn start() -> Self {
        Self::with_limits(DrainLimits::new(FOREVER), FOREVER).await
    }

    pub(crate) async fn with_limits(limits: DrainLimits, within: Duration) -> Self {
        Self::on(Memory::new(), limits, within).await
    }

    pub(crate) async fn on(
        store: impl Backend + Clone,
        limits: DrainLimits,
        within: Duration,
    ) -> Self {
        let (locks, others) = (registry(store.clone()), registry(store));
        let gate = Gate::default();
        let app = app(gate.clone()).layer(ScopeLayer::new(&locks));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (signal, second_signal) = (CancellationToken::new(), CancellationToken::new());
        let server = dlock_axum::serve(listener, app, &locks)
            .drain_limits(limits)
            .within(within)
            .force_on(second_signal.clone().cancelled_owned())
            .until(signal.clone().cancelled_owned());
        let serving = tokio::spawn(server);
        Self { address, gate, locks, others, signal, second_signal, serving }
    }

    /// Returns when the server no longer listens.
    pub(crate) async fn refuses(&self) {
        let refused = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        within_a_minute(refused).await;
    }

    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        within_a_minute(self.serving).await.expect("no panic")
    }
}

pub(crate) fn registry(store: impl Backend) -> Registry {
    Registry::builder().backend("memory", store).build().expect("one backend")
}
