//! A registry for the requests of one router.

use std::pin::Pin;
use std::task::{Context, Poll};

use dlock_runtime::Registry;
use tower_layer::Layer;
use tower_service::Service;

/// Runs each request in a registry's [scope](Registry::scope).
///
/// A service needs no such layer: its handlers use the registry that it has installed. A test does, because a process has
/// only one installed registry, and tests run side by side. With the layer, each test serves the same router with a
/// registry of its own:
///
/// ```
/// use axum::Router;
/// use axum::routing::post;
/// use dlock_axum::{LockRejection, ScopeLayer};
/// use dlock_runtime::{Registry, backend::Memory, distributed_lock};
///
/// #[distributed_lock(key = "report", ttl = "5s", wait = "0s", backend = "redis")]
/// async fn report() -> Result<(), LockRejection> {
///     Ok(())
/// }
///
/// fn app() -> Router {
///     Router::new().route("/report", post(report))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Registered under the name that the attribute uses, whatever it is in production.
/// let locks = Registry::builder().backend("redis", Memory::new()).build()?;
/// let app = app().layer(ScopeLayer::new(&locks));
/// # let _: Router = app;
/// # Ok(())
/// # }
/// ```
///
/// The scope ends with the handler. A body that is streamed afterwards and tasks that the handler spawns are not in it.
#[derive(Clone, Debug)]
pub struct ScopeLayer {
    registry: Registry,
}

impl ScopeLayer {
    /// Creates a layer whose requests use this registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone() }
    }
}

impl<S> Layer<S> for ScopeLayer {
    type Service = ScopeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ScopeService { inner, registry: self.registry.clone() }
    }
}

/// The service that [`ScopeLayer`] makes.
#[derive(Clone, Debug)]
pub struct ScopeService<S> {
    inner: S,
    registry: Registry,
}

impl<S, R> Service<R> for ScopeService<S>
where
    S: Service<R, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let response = self.inner.call(request);
        let registry = self.registry.clone();
        Box::pin(async move { registry.scope(response).await })
    }
}
