//! The primitives that tasks and threads share the engine's state through, in one place: a model checker runs the same
//! engine on primitives of its own, in every order that these allow (`tests/loom`).

/// Whether tasks that only observe are started.
pub(crate) const HAS_BACKGROUND: bool = true;

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use tokio::sync::{Notify, futures::Notified, oneshot};

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}
