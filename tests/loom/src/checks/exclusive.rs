//! A store that notes whether a renewal reached it beside a release, or after it.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::TTL;
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released, Renewal,
    Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;

#[derive(Clone, Debug, Default)]
pub(super) struct Exclusive(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_busy: AtomicBool,
    is_released: AtomicBool,
    /// Noted rather than reported, because the engine catches the panics of a store.
    is_violated: AtomicBool,
    renewals: AtomicUsize,
}

impl Exclusive {
    /// A swap sees the latest value, so nothing else has to be in order.
    fn execute(&self, releases: bool) {
        let was_busy = self.0.is_busy.swap(true, Ordering::Relaxed);
        let was_released = self.0.is_released.swap(releases, Ordering::Relaxed);
        if was_busy || was_released {
            self.0.is_violated.store(true, Ordering::Relaxed);
        }
        self.0.is_busy.swap(false, Ordering::Relaxed);
    }

    pub(super) fn was_violated(&self) -> bool {
        self.0.is_violated.swap(false, Ordering::Relaxed)
    }

    pub(super) fn renewals(&self) -> usize {
        self.0.renewals.fetch_add(0, Ordering::Relaxed)
    }
}

impl AsyncBackend for Exclusive {
    fn kind(&self) -> &'static str {
        "exclusive"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LEASES
    }

    async fn renew(&self, _: &Claim) -> Result<Renewal, BackendError> {
        self.0.renewals.fetch_add(1, Ordering::Relaxed);
        self.execute(false);
        Ok(Renewal::Renewed { validity: TTL })
    }

    async fn release(&self, _: &Claim, _: Release) -> Result<Released, BackendError> {
        self.execute(true);
        Ok(Released::Released)
    }

    async fn try_acquire(&self, _: &Claim) -> Result<Attempt, BackendError> {
        Err(unused())
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(unused())
    }

    async fn inspect(&self, _: &LockKey) -> Result<Option<Holder>, BackendError> {
        Err(unused())
    }

    async fn list(&self, _: &str) -> Result<Vec<LockState>, BackendError> {
        Err(unused())
    }

    async fn revoke(&self, _: &LockKey) -> Result<bool, BackendError> {
        Err(unused())
    }

    async fn force_release(&self, _: &LockKey) -> Result<bool, BackendError> {
        Err(unused())
    }
}

fn unused() -> BackendError {
    BackendError::permanent("this check only renews and releases")
}
