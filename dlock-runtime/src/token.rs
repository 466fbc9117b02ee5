//! Fencing tokens.

use std::fmt;

/// A number that orders the holds of a key, so that a resource can refuse a late write of a former
/// holder.
///
/// Of two holds of one key that exclude each other, the later one has the strictly larger token:
/// across all processes, after expiry, forced release and reconnects, and after restarts of a
/// backend that keeps its data. Store the largest token seen beside the data, and refuse a write
/// with a smaller one. Tokens of different keys or different backends cannot be compared.
///
/// The idea is described in Martin Kleppmann, *How to do distributed locking* (2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FencingToken(u64);

impl FencingToken {
    /// Creates a token with this value, for backends and for reading a stored token back.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number. It stays below 2^63, so that every database can store it.
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
