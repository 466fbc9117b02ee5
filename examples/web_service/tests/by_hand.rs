//! The guide's response for a lock error, written without `dlock-axum`.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use dlock_runtime::backend::Memory;
use dlock_runtime::{LockError, Registry};

struct Rejected(LockError);

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            LockError::Busy { .. } => StatusCode::LOCKED,
            LockError::Backend { source, .. } if source.is_transient() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            LockError::ShutDown { .. } => StatusCode::SERVICE_UNAVAILABLE,
            LockError::HeldTooLong { .. } => StatusCode::GATEWAY_TIMEOUT,
            LockError::InvalidKey { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::warn!(error = %self.0, hint = self.0.hint(), "no lock");
        let retry = matches!(status, StatusCode::LOCKED | StatusCode::SERVICE_UNAVAILABLE);
        (status, retry.then_some([(RETRY_AFTER, "1")]), ()).into_response()
    }
}

#[tokio::test]
async fn it_agrees_with_dlock_axum() -> anyhow::Result<()> {
    let locks = Registry::builder().backend("memory", Memory::new()).build()?;
    let held = locks.lock("product:7").acquire().await?;
    let at_once = || locks.lock("product:7").wait(std::time::Duration::ZERO);
    let busy = at_once().acquire().await.expect_err("it is held");
    agrees(busy);
    held.release().await?;
    agrees(locks.lock("").acquire().await.expect_err("an empty key"));
    agrees(locks.lock("k").backend("nowhere").acquire().await.expect_err("no such backend"));
    locks.shutdown(std::time::Duration::ZERO).await?;
    agrees(at_once().acquire().await.expect_err("shut down"));
    Ok(())
}

fn agrees(error: LockError) {
    let status = dlock_axum::status_of(&error);
    let response = Rejected(error).into_response();
    assert_eq!(response.status(), status);
    let may_retry = status == StatusCode::LOCKED || status == StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(response.headers().contains_key(RETRY_AFTER), may_retry);
}
