//! Waiting for a key to become free.

use super::Answer;

/// A standing interest in one key; dropping it ends the interest.
pub trait Watch: Send {
    /// Resolves when the key may have become free since the watch began or since the last time.
    ///
    /// # Cancel safety
    /// Dropping the answer loses no change: the next call reports it.
    fn changed(&mut self) -> Answer<'_, ()>;
}
