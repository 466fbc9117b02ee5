//! What can go wrong, as responses.

use std::io;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dlock_axum::LockRejection;
use dlock_runtime::LockError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ShopError {
    #[error("sold out")]
    SoldOut,
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the stock cannot be read or written")]
    Stock(#[from] io::Error),
}

impl IntoResponse for ShopError {
    fn into_response(self) -> Response {
        match self {
            Self::SoldOut => StatusCode::CONFLICT.into_response(),
            Self::Lock(error) => LockRejection::from(error).into_response(),
            Self::Stock(error) if error.kind() == io::ErrorKind::NotFound => {
                StatusCode::NOT_FOUND.into_response()
            }
            Self::Stock(error) => {
                tracing::error!(%error, "the stock cannot be read or written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}
