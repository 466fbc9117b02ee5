//! The slots of a Cluster, and the master of each.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use redis::aio::MultiplexedConnection;
pub(super) use redis::cluster_routing::Slot;
use redis::{ErrorKind, RedisError, RedisResult, Value};

/// A range of slots and its master, as a node reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Assigned {
    pub(super) fn each(&self) -> impl Iterator<Item = Slot> {
        self.slots.clone().filter_map(Slot::new)
    }
}

/// Asks a node for the masters of all slots. Its own address is `by`.
pub(super) async fn ask(
    mut connection: MultiplexedConnection,
    by: String,
) -> RedisResult<Vec<Assigned>> {
    let reported = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
    let reported = read(reported, &by);
    if reported.is_empty() {
        // A node that was removed from the Cluster, or has just joined it, knows none.
        let problem = "the node knows no slots";
        return Err(RedisError::from((ErrorKind::Io, problem)));
    }
    Ok(reported)
}

/// Skips what cannot be read: another node may report it in another way.
fn read(reported: Value, by: &str) -> Vec<Assigned> {
    let Value::Array(ranges) = reported else { return vec![] };
    ranges.into_iter().filter_map(|range| assigned(range, by)).collect()
}

fn assigned(range: Value, by: &str) -> Option<Assigned> {
    let Value::Array(range) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
        return None;
    };
    let [host, Value::Int(port), ..] = &master[..] else { return None };
    let host = match host {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok()?,
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    };
    let slots = u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?;
    let (host, port) = address_of(&format!("{host}:{port}"), by)?;
    Some(Assigned { slots, host, port })
}

/// Parses an address that a node reports. Without a host, the host is that of the node itself, `by`.
pub(super) fn address_of(address: &str, by: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.split('@').next()?.parse().ok()?;
    let host = match host {
        "" | "?" => by.rsplit_once(':')?.0,
        host => host,
    };
    Some((host.to_owned(), port))
}

/// The masters, by slot.
#[derive(Clone)]
pub(super) struct Masters<S>(HashMap<Slot, S>);

impl<S> Default for Masters<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S: Clone> Masters<S> {
    pub(super) fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&self, slot: Slot) -> Option<S> {
        self.0.get(&slot).cloned()
    }

    pub(super) fn assign(&mut self, slots: impl IntoIterator<Item = Slot>, master: &S) {
        self.0.extend(slots.into_iter().map(|slot| (slot, master.clone())));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &S> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master])
    }

    #[test]
    fn a_missing_host_is_that_of_the_node_that_was_asked() {
        let reported = Value::Array(vec![
            range(0, 10, text("10.0.0.1"), 7000),
            range(11, 11, text(""), 7001),
            range(12, 13, Value::Nil, 7002),
            range(14, 99_999, text("no slot"), 7003),
            range(14, 15, text("::1"), 7004),
        ]);
        let reported = read(reported, "example.org:6379");
        let reported: Vec<_> = reported.iter().map(|at| (at.host.as_str(), at.port)).collect();
        let own = "example.org";
        assert_eq!(reported, [("10.0.0.1", 7000), (own, 7001), (own, 7002), ("::1", 7004)]);
    }

    #[test]
    fn addresses_in_redirections_are_read() {
        let of = |address| address_of(address, "own:1");
        assert_eq!(of("there:7000"), Some(("there".to_owned(), 7000)));
        assert_eq!(of(":7000@17000"), Some(("own".to_owned(), 7000)));
        assert_eq!(of("?:7000"), Some(("own".to_owned(), 7000)));
        assert_eq!(of("there"), None);
    }
}
