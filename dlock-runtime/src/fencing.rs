//! The resource's side of [fencing tokens](crate::FencingToken): writes that a stale holder cannot
//! make.
//!
//! A lease cannot stop a holder that was paused past its end and does not know it yet. The resource
//! can: it keeps the largest token it has seen beside the data and refuses a write that carries a
//! smaller one, in one atomic step. These helpers do that for rows of an SQL table
//! (`update`, features `sqlite`, `postgres`, `mysql`) and for values in Redis (`set`, feature
//! `redis`).
//!
//! A token protects only where every writer of the row or value presents one, and only tokens of one
//! lock (same key, same backend) may meet in one place.
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
    /// A later holder has written already: this one's lease has ended, whether it knows or not.
    #[error(
        "fencing token {presented} is stale: a later holder of the lock has written with {newest}; nothing was written"
    )]
    #[non_exhaustive]
    Stale {
        /// The token of this write.
        presented: FencingToken,
        /// The largest token that has written.
        newest: FencingToken,
    },
    /// There is no such row.
    #[error("there is no row to write: none fits the update's conditions")]
    NoSuchRow,
    /// The store failed; whether the write was made is not known.
    #[error("the fenced write failed: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FencingError {
    /// Has a later holder written already?
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
    fn store(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(error))
    }
}
