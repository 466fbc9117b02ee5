//! Guides: what a user has to decide, and what happens when things go wrong.

#[doc = include_str!("guide/backends.md")]
pub mod backends {}

#[doc = include_str!("guide/failures.md")]
pub mod failures {}

#[doc = include_str!("guide/fencing.md")]
pub mod fencing {}

#[cfg(feature = "mysql")]
#[doc = include_str!("guide/mysql.md")]
pub mod mysql {}

#[cfg(feature = "postgres")]
#[doc = include_str!("guide/postgres.md")]
pub mod postgres {}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[doc = include_str!("guide/row_locks.md")]
pub mod row_locks {}

#[doc = include_str!("guide/reentrancy.md")]
pub mod reentrancy {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}
