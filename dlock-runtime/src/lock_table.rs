//! Who holds a key and who waits for it: the logic of a lock, without a store.
//!
//! Memory, SQLite, PostgreSQL and MySQL run it; ZooKeeper and etcd decide by its queue; the Lua scripts of Redis are
//! tested against it.

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod codec;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod queue;
pub(crate) mod record;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod row;
#[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod words;
