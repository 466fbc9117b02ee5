//! Who was in which critical section, and when: checked at the end of a schedule against what dlock promises.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlock_runtime::{LockGuard, sim};

/// How a hold excludes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody else holds the key.
    Exclusive,
    /// Only others of this kind hold the key.
    Shared,
    /// At most this many hold the key.
    Permits(usize),
}

/// Everything that was seen of the holds of one schedule. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, Vec<Seen>>>>);

/// What was seen of one hold.
#[derive(Clone, Debug)]
struct Seen {
    who: String,
    kind: Kind,
    token: u64,
    /// When its body was polled first and last.
    first: Duration,
    last: Duration,
}

/// A body under a lock. Call [`touch`](Self::touch) whenever it is polled.
#[derive(Debug)]
pub struct Visit {
    ledger: Ledger,
    key: String,
    at: usize,
}

impl Ledger {
    /// Notes that a body has begun.
    #[must_use]
    pub fn enter(&self, who: &str, kind: Kind, guard: &LockGuard) -> Visit {
        let now = sim::now();
        let (key, token) = (guard.key().as_str().to_owned(), guard.fencing_token().get());
        sim::note(format!("enters {key} with token {token}"));
        let seen = Seen { who: who.to_owned(), kind, token, first: now, last: now };
        let mut holds = self.lock();
        let holds = holds.entry(key.clone()).or_default();
        holds.push(seen);
        let at = holds.len() - 1;
        Visit { ledger: self.clone(), key, at }
    }

    /// Checks all holds against each other.
    ///
    /// # Panics
    /// If two holds that exclude each other overlapped, or the later one has the smaller token.
    pub fn check(&self) {
        for (key, holds) in self.lock().iter() {
            for (at, one) in holds.iter().enumerate() {
                for other in &holds[at + 1..] {
                    check_pair(key, one, other);
                }
            }
            check_permits(key, holds);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit {
    /// Notes that the body is polled at this moment.
    pub fn touch(&self) {
        if let Some(seen) = self.ledger.lock().get_mut(&self.key) {
            seen[self.at].last = sim::now();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // The process may be gone, and with it the simulation around it.
        let Some(token) = self.ledger.lock().get(&self.key).map(|seen| seen[self.at].token) else {
            return;
        };
        sim::note(format!("leaves {} with token {token}", self.key));
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, kind, token, first, last } = self;
        write!(f, "{who} ({kind:?}, token {token}, from {first:?} to {last:?})")
    }
}

fn exclude_each_other(one: Kind, other: Kind) -> bool {
    match (one, other) {
        (Kind::Shared, Kind::Shared) | (Kind::Permits(_), Kind::Permits(_)) => false,
        (Kind::Exclusive | Kind::Shared | Kind::Permits(_), _) => true,
    }
}

fn check_pair(key: &str, one: &Seen, other: &Seen) {
    if !exclude_each_other(one.kind, other.kind) {
        return;
    }
    let (earlier, later) = if one.first <= other.first { (one, other) } else { (other, one) };
    assert!(earlier.last <= later.first, "two holds of {key} overlap: {earlier} and {later}");
    assert!(
        earlier.token < later.token,
        "tokens of {key} do not grow: {earlier}, and after it {later}"
    );
}

/// At each moment at which a hold with permits begins, no more than its limit are there.
fn check_permits(key: &str, holds: &[Seen]) {
    for one in holds {
        let Kind::Permits(limit) = one.kind else { continue };
        let there = holds.iter().filter(|other| {
            matches!(other.kind, Kind::Permits(_))
                && other.first <= one.first
                && one.first < other.last.max(other.first + Duration::from_nanos(1))
        });
        let there: Vec<_> = there.map(ToString::to_string).collect();
        assert!(
            there.len() <= limit,
            "{} holds of {key} at once: {}",
            there.len(),
            there.join(", ")
        );
    }
}
