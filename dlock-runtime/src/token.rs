//! Fencing tokens.

use std::fmt;

/// A number that grows with every grant of a key, so that a resource can refuse a holder whose
/// lease has passed to somebody else.
///
/// Among two holds of one key the later grant has the strictly larger token: over all processes,
/// after expiry, after a forced release, after reconnects, and after restarts of a backend that
/// keeps its data. Store the largest token seen beside the data and refuse a write that carries a
/// smaller one. Tokens of different keys, and of different backends, do not compare.
///
/// The idea is described in Martin Kleppmann, *How to do distributed locking* (2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// A token with this value; for backends and for reading a stored token back.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself. It stays below 2^63, so that every database can store it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
