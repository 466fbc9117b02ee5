//! The slots of a Cluster: which one a name is in, and who has which.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use redis::aio::MultiplexedConnection;
pub(super) use redis::cluster_routing::Slot;
use redis::{ErrorKind, RedisError, RedisResult, Value};

/// What a node says of some slots: their master.
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

/// Asks a node, whose own address is `by`.
pub(super) async fn ask(
    mut connection: MultiplexedConnection,
    by: String,
) -> RedisResult<Vec<Assigned>> {
    let told = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
    let told = read(told, &by);
    if told.is_empty() {
        // One that was left out of the Cluster, or has just joined it, knows of none.
        let problem = "the node knows of no slots";
        return Err(RedisError::from((ErrorKind::Io, problem)));
    }
    Ok(told)
}

/// What cannot be read is left out: another node may say it otherwise.
fn read(told: Value, by: &str) -> Vec<Assigned> {
    let Value::Array(ranges) = told else { return vec![] };
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

/// Host and port of an address as a node tells it. Without a host it is the node's own, `by`.
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
    fn a_node_that_does_not_know_its_own_name_is_the_one_that_was_asked() {
        let told = Value::Array(vec![
            range(0, 10, text("10.0.0.1"), 7000),
            range(11, 11, text(""), 7001),
            range(12, 13, Value::Nil, 7002),
            range(14, 99_999, text("no slot"), 7003),
            range(14, 15, text("::1"), 7004),
        ]);
        let told = read(told, "example.org:6379");
        let told: Vec<_> = told.iter().map(|at| (at.host.as_str(), at.port)).collect();
        let own = "example.org";
        assert_eq!(told, [("10.0.0.1", 7000), (own, 7001), (own, 7002), ("::1", 7004)]);
    }

    #[test]
    fn addresses_are_read_as_redirections_tell_them() {
        let of = |address| address_of(address, "own:1");
        assert_eq!(of("there:7000"), Some(("there".to_owned(), 7000)));
        assert_eq!(of(":7000@17000"), Some(("own".to_owned(), 7000)));
        assert_eq!(of("?:7000"), Some(("own".to_owned(), 7000)));
        assert_eq!(of("there"), None);
    }
}
