//! A new session after the previous one has ended.
//!
//! All tasks that need it wait for the same attempt and learn about its failure together. Pauses follow failed attempts:
//! in an outage there are a few connections per second, however many tasks wait.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::session::Session;
use super::{Inner, ZooKeeper};
use crate::error::BackendError;
use crate::stores::shared::outage::{Failure, Outage};
use crate::stores::shared::single_flight::SingleFlight;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The attempts to create a session.
#[derive(Debug)]
pub(super) struct Reconnecting {
    flight: SingleFlight<Result<Arc<Session>, Failure>>,
    outage: Outage,
}

impl Default for Reconnecting {
    fn default() -> Self {
        Self { flight: SingleFlight::new(), outage: Outage::new(FIRST_PAUSE, LONGEST_PAUSE) }
    }
}

impl ZooKeeper {
    /// The current session, or a new one.
    pub(super) async fn session(&self) -> Result<Arc<Session>, BackendError> {
        if let Some(session) = self.living() {
            return Ok(session);
        }
        let inner = Arc::downgrade(&self.0);
        let outcome = self.0.reconnecting.flight.join(|| reconnect(inner)).await;
        outcome.unwrap_or_else(|| Err(ended())).map_err(BackendError::from)
    }
}

async fn reconnect(inner: Weak<Inner>) -> Result<Arc<Session>, Failure> {
    let ensemble = {
        let store = ZooKeeper(inner.upgrade().ok_or_else(ended)?);
        // Another attempt may just have succeeded.
        if let Some(session) = store.living() {
            return Ok(session);
        }
        store.0.reconnecting.outage.admit()?;
        store.0.ensemble.clone()
    };
    let answer = ensemble.connect().await;
    // If the store is gone, the session is closed.
    let store = ZooKeeper(inner.upgrade().ok_or_else(ended)?);
    let outage = &store.0.reconnecting.outage;
    let session = answer.map_err(|error| {
        let failure = Failure::from(&error);
        outage.failed(&failure);
        failure
    })?;
    outage.over();
    store.claims().retain(|_, known| known.lives());
    *store.current() = Some(Arc::clone(&session));
    Ok(session)
}

fn ended() -> Failure {
    Failure::transient("the connection attempt to zookeeper ended because its runtime shut down")
}
