//! Lock errors as responses.

use std::error::Error;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dlock_runtime::LockError;

use crate::problem::Problem;

/// Returns the status that tells a client about this error.
///
/// | error | status | `Retry-After` |
/// |---|---|---|
/// | [`Busy`](LockError::Busy) | 423 Locked | 1 s |
/// | [`Backend`](LockError::Backend), [transient](LockError::is_transient) | 503 Service Unavailable | 5 s |
/// | [`ShutDown`](LockError::ShutDown) before the body began | 503 Service Unavailable | 1 s |
/// | [`ShutDown`](LockError::ShutDown) of a body that had begun | 503 Service Unavailable | |
/// | [`HeldTooLong`](LockError::HeldTooLong) | 504 Gateway Timeout | |
/// | [`InvalidKey`](LockError::InvalidKey) | 400 Bad Request | |
/// | [`Lost`](LockError::Lost) | 500 Internal Server Error | |
/// | any other | 500 Internal Server Error | |
///
/// A `Busy` lock that the same task [holds](dlock_runtime::HeldBy::ThisTask) is a mistake in the service, and therefore a
/// 500. The header is set by [`LockRejection`]. Its times are short, because the call has waited before it failed: the
/// least for a busy lock, as long as a store may need to recover, and the least for a process that another one replaces.
#[must_use]
pub fn status_of(error: &LockError) -> StatusCode {
    Problem::of(error).status
}

/// A [`LockError`] that is a response: the error type of a handler under an attribute.
///
/// ```
/// use axum::extract::Path;
/// use dlock_axum::LockRejection;
/// use dlock_runtime::distributed_lock;
///
/// #[distributed_lock(key = "product:<id>", ttl = "5s", wait = "0s")]
/// async fn purchase(Path(id): Path<u64>) -> Result<String, LockRejection> {
///     Ok(format!("sold product {id}"))
/// }
/// # let _: axum::Router = axum::Router::new().route("/{id}", axum::routing::post(purchase));
/// ```
///
/// [`status_of`] lists the statuses. The body is a problem of RFC 9457 (`application/problem+json`); its types are listed
/// in [`problems`](crate::problems). It is the same for each error of a kind and names nothing: no host, because that is
/// nobody's business, and no key, because a key may contain what the client does not know, such as the id of another
/// customer. The client knows what it has asked for.
///
/// What the client is not told goes to the log: an event of `tracing` under the target `dlock` has the error with its key,
/// the [hint](LockError::hint) and the [source](Error::source). It is a warning if the status is 5xx, and has the level
/// debug otherwise.
///
/// If your handlers have an error type of their own, delegate to this one:
///
/// ```
/// use axum::http::StatusCode;
/// use axum::response::{IntoResponse, Response};
/// use dlock_axum::LockRejection;
/// use dlock_runtime::LockError;
///
/// #[derive(Debug, thiserror::Error)]
/// enum ShopError {
///     #[error("sold out")]
///     SoldOut,
///     #[error(transparent)]
///     Lock(#[from] LockError),
/// }
///
/// impl IntoResponse for ShopError {
///     fn into_response(self) -> Response {
///         match self {
///             Self::SoldOut => StatusCode::CONFLICT.into_response(),
///             Self::Lock(error) => LockRejection::from(error).into_response(),
///         }
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LockRejection(LockError);

impl LockRejection {
    /// Returns the error.
    #[must_use]
    pub fn error(&self) -> &LockError {
        &self.0
    }

    /// Returns the error by value.
    #[must_use]
    pub fn into_error(self) -> LockError {
        self.0
    }

    /// Returns the status of the response; see [`status_of`].
    #[must_use]
    pub fn status(&self) -> StatusCode {
        status_of(&self.0)
    }
}

impl From<LockError> for LockRejection {
    fn from(error: LockError) -> Self {
        Self(error)
    }
}

impl IntoResponse for LockRejection {
    fn into_response(self) -> Response {
        let problem = Problem::of(&self.0);
        log(&self.0, problem.status);
        problem.into_response()
    }
}

fn log(error: &LockError, status: StatusCode) {
    let (hint, source, code) = (error.hint(), error.source(), status.as_u16());
    if status.is_server_error() {
        tracing::warn!(target: "dlock", status = code, %error, hint, source, "request failed");
    } else {
        tracing::debug!(target: "dlock", status = code, %error, hint, source, "request refused");
    }
}
