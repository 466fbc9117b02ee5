//! Code that several stores share.

#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod addresses;
#[cfg(any(
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "zookeeper",
    feature = "etcd"
))]
pub(crate) mod batcher;
#[cfg(any(feature = "etcd", feature = "sim"))]
pub(crate) mod claim_leases;
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
pub(crate) mod doubt;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod in_flight_limit;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod node_queue;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod outage;
#[cfg(any(feature = "zookeeper", feature = "sim"))]
pub(crate) mod proofs;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod queue_codec;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod single_flight;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod sql;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod sql_leases;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod sweeper;
pub(crate) mod tombstones;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod url;
#[cfg(any(feature = "redis", feature = "postgres"))]
pub(crate) mod wakeups;
