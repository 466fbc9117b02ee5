//! The resource's side of [fencing tokens](crate::FencingToken): writes that refuse a stale holder.
//!
//! A lease cannot stop a holder that was paused past its end and does not know it yet. The resource
//! can: it stores the largest token it has seen beside the data and refuses a write with a smaller
//! one, in one atomic step. These functions do that for rows of an SQL table (`update`, features
//! `sqlite`, `postgres`, `mysql`) and for values in Redis (`set`, feature `redis`).
//!
//! Tokens protect a row or value only if every writer presents one, and if all of them come from one
//! lock (same key, same backend).
//!
//! The idea is described in Martin Kleppmann, *How to do distributed locking* (2016).

#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;

#[cfg(feature = "redis")]
pub use redis::set;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use sql::{FencedDatabase, FencedUpdate, FencedUpdateWhere, update};

use crate::token::FencingToken;

/// Why a fenced write was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FencingError {
    /// A later holder has already written: this holder's lease has ended, even if it does not know yet.
    #[error(
        "fencing token {presented} is stale: a later holder of the lock has written with {newest}; nothing was written"
    )]
    #[non_exhaustive]
    Stale {
        /// The token of this write.
        presented: FencingToken,
        /// The largest token that has been used for a write.
        newest: FencingToken,
    },
    /// No row matches.
    #[error("no row was updated: none matches the conditions of the update")]
    NoSuchRow,
    /// The store failed. The write may or may not have been made.
    #[error("the fenced write failed: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FencingError {
    /// Returns whether a later holder has already written.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    fn store(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(error))
    }
}
