//! The logic of a lock, independent of any store: holders, waiters and who may enter.
//!
//! Memory, SQLite, PostgreSQL and MySQL run it. ZooKeeper and etcd use its queue, Redlock its majority. The Lua scripts
//! of Redis are tested against it.

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod codec;
#[cfg(any(feature = "redis", feature = "sim"))]
pub(crate) mod majority;
#[cfg(any(feature = "zookeeper", feature = "etcd", feature = "sim"))]
pub(crate) mod queue;
pub(crate) mod record;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod row;
#[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod words;
