//! Waiting for a key to become free.

use super::Answer;

/// A subscription to the changes of one key; dropping it unsubscribes.
pub trait Watch: Send {
    /// Resolves when the key may have become free since the watch began or since the last change.
    ///
    /// # Cancel safety
    /// Dropping the answer loses no change: the next call reports it.
    fn changed(&mut self) -> Answer<'_, ()>;
}
