//! Waiting for a key to become free.

use super::Answer;

/// A subscription to the changes of one key; dropping it unsubscribes.
///
/// The engine may pass it from one task to another one of the same runtime, but never to another runtime.
pub trait Watch: Send {
    /// Resolves when the key may have become free since the watch began or since the last change.
    ///
    /// # Cancel safety
    /// Dropping the answer loses no change: the next call reports it.
    fn changed(&mut self) -> Answer<'_, ()>;
}
