//! What a client is told: one constant problem for each kind of failure.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use dlock_runtime::{HeldBy, LockError};

/// A problem of RFC 9457. All of it is constant: a value of the request, a host or a key cannot get into a response.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// The heading in [`problems`](crate::problems).
    anchor: Option<&'static str>,
    detail: &'static str,
    /// In seconds.
    retry_after: Option<&'static str>,
}

// The call has waited already, for its whole `wait`. One second is the least that the header can say without inviting an
// immediate retry.
const BUSY: Problem = Problem {
    status: StatusCode::LOCKED,
    anchor: Some("busy"),
    detail: "Another request works on the same resource. Try again later.",
    retry_after: Some("1"),
};

// About what a store needs to restart or to fail over.
const UNAVAILABLE: Problem = Problem {
    status: StatusCode::SERVICE_UNAVAILABLE,
    anchor: Some("unavailable"),
    detail: "The service is unavailable for a moment. Nothing was done. Try again later.",
    retry_after: Some("5"),
};

// Load balancers send the next request to another process.
const SHUTTING_DOWN: Problem = Problem {
    status: StatusCode::SERVICE_UNAVAILABLE,
    anchor: Some("shutting-down"),
    detail: "The server is shutting down. Nothing was done. Try again.",
    retry_after: Some("1"),
};

// No `Retry-After`: what was done in part may not be safe to repeat.
const STOPPED: Problem = Problem {
    status: StatusCode::SERVICE_UNAVAILABLE,
    anchor: Some("stopped"),
    detail: "The request was stopped on its way, because its server is shutting down.",
    retry_after: None,
};

const TOO_LONG: Problem = Problem {
    status: StatusCode::GATEWAY_TIMEOUT,
    anchor: Some("too-long"),
    detail: "The request took too long and was stopped.",
    retry_after: None,
};

const INVALID_KEY: Problem = Problem {
    status: StatusCode::BAD_REQUEST,
    anchor: Some("invalid-key"),
    detail: "A part of the resource's name is empty or too long.",
    retry_after: None,
};

const LOST: Problem = Problem {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    anchor: Some("lost"),
    detail: "The request may have been carried out in full, in part or not at all.",
    retry_after: None,
};

const INTERNAL: Problem = Problem {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    anchor: None,
    detail: "The request failed.",
    retry_after: None,
};

impl Problem {
    pub(crate) fn of(error: &LockError) -> &'static Self {
        match error {
            // A call that waits for itself is a mistake in the service, and no retry succeeds.
            LockError::Busy { holder: HeldBy::ThisTask, .. } => &INTERNAL,
            LockError::Busy { .. } => &BUSY,
            LockError::Backend { source, .. } if source.is_transient() => &UNAVAILABLE,
            LockError::ShutDown { began: false, .. } => &SHUTTING_DOWN,
            LockError::ShutDown { .. } => &STOPPED,
            LockError::HeldTooLong { .. } => &TOO_LONG,
            LockError::InvalidKey { .. } => &INVALID_KEY,
            LockError::Lost { .. } => &LOST,
            _ => &INTERNAL,
        }
    }

    /// No text in it needs to be escaped.
    fn body(&self) -> String {
        let kind = match self.anchor {
            Some(anchor) => {
                format!("https://docs.rs/dlock-axum/latest/dlock_axum/problems/index.html#{anchor}")
            }
            None => "about:blank".to_owned(),
        };
        format!(
            r#"{{"type":"{kind}","title":"{}","status":{},"detail":"{}"}}"#,
            self.status.canonical_reason().unwrap_or_default(),
            self.status.as_u16(),
            self.detail
        )
    }
}

impl IntoResponse for &Problem {
    fn into_response(self) -> Response {
        let kind = [(CONTENT_TYPE, "application/problem+json")];
        let retry_after = self.retry_after.map(|seconds| [(RETRY_AFTER, seconds)]);
        (self.status, kind, retry_after, self.body()).into_response()
    }
}
