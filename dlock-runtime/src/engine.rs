//! The part that all backends share: local queues, acquire, renewal, release, reentrancy, and running a body under its
//! lock.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, Capabilities, Holder, Mode, ShownBy};
use crate::error::LockError;
use crate::key::LockKey;
use crate::options::{Handover, LockOptions};

mod acquire;
mod contention;
mod deadline;
pub(crate) mod hold;
mod line_up;
pub(crate) mod local_queue;
#[cfg(any(debug_assertions, feature = "lockdep"))]
mod lock_order;
mod nesting;
mod open_holds;
pub(crate) mod passing;
mod release;
mod request;
mod run_guarded;
pub(crate) mod supported;
pub(crate) mod telemetry;
#[cfg(test)]
mod tests;
mod waiting;
mod wanted;
pub(crate) mod watchdog;

use contention::ContendedKeys;
pub(crate) use hold::{Ending, Hold};
pub use hold::{HoldState, States};
use local_queue::LocalQueues;
pub(crate) use nesting::{Inside, Nested};
use open_holds::OpenHolds;
pub(crate) use release::{release, release_later};
pub(crate) use request::{CallKind, MANUAL, Request, enter, enter_set};
pub(crate) use run_guarded::run_guarded;
use telemetry::{Labels, Store};
use watchdog::Watchdogs;

/// Backends by name, with the queues, renewals and background work of the locks acquired through them.
pub(crate) struct Engine {
    backends: Vec<Arc<NamedBackend>>,
    /// The index of the backend of locks that name none.
    pub(crate) default_backend: Option<usize>,
    pub(crate) default_ttl: Duration,
    pub(crate) default_handover: Handover,
    pub(crate) queues: Arc<LocalQueues>,
    pub(crate) watchdogs: Watchdogs,
    /// The holds that have not been released.
    pub(crate) open_holds: OpenHolds,
    /// The releases and acquire cleanups that no caller awaits. Closed by a shutdown.
    pub(crate) background: TaskTracker,
    pub(crate) shut_down: CancellationToken,
    /// Cancelled when bodies are stopped, also those that have lost their leases.
    pub(crate) stop_bodies: CancellationToken,
    pub(crate) disagreements: Disagreements,
    pub(crate) contended: ContendedKeys,
    #[cfg(any(debug_assertions, feature = "lockdep"))]
    pub(crate) lock_order: lock_order::LockOrder,
    /// Whether the store is asked who holds a key that tasks have waited for.
    pub(crate) asks_who_holds: bool,
}

/// Where different numbers of permits were seen, by backend and key template.
#[derive(Debug, Default)]
pub(crate) struct Disagreements(Mutex<HashSet<(usize, &'static str)>>);

impl Disagreements {
    /// Returns true the first time.
    pub(crate) fn note(&self, backend: usize, template: &'static str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((backend, template))
    }
}

/// A backend under its name.
pub(crate) struct NamedBackend {
    pub(crate) name: Arc<str>,
    pub(crate) index: usize,
    pub(crate) capabilities: Capabilities,
    pub(crate) store: Box<dyn Backend>,
    pub(crate) outages: telemetry::Outages,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("backends", &self.backends)
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NamedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.store.kind())
    }
}

impl Engine {
    /// Creates an engine for these backends, without a default backend.
    pub(crate) fn new(backends: Vec<Arc<NamedBackend>>, default_ttl: Duration) -> Self {
        Self {
            backends,
            default_backend: None,
            default_ttl,
            default_handover: Handover::DEFAULT,
            queues: Arc::new(LocalQueues::default()),
            watchdogs: Watchdogs::default(),
            open_holds: OpenHolds::default(),
            background: TaskTracker::new(),
            shut_down: CancellationToken::new(),
            stop_bodies: CancellationToken::new(),
            disagreements: Disagreements::default(),
            contended: ContendedKeys::default(),
            #[cfg(any(debug_assertions, feature = "lockdep"))]
            lock_order: lock_order::LockOrder::default(),
            asks_who_holds: true,
        }
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<NamedBackend>> {
        self.backends.iter()
    }

    /// The backend of this name, or the default one.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&Arc<NamedBackend>, LockError> {
        let index = match name {
            None => self.default_backend,
            Some(name) => self.backends.iter().position(|backend| &*backend.name == name),
        };
        index.map(|index| &self.backends[index]).ok_or_else(|| LockError::UnknownBackend {
            name: name.unwrap_or("(default)").into(),
            registered: self.names().into(),
        })
    }

    pub(crate) fn names(&self) -> String {
        if self.backends.is_empty() {
            return "none".to_owned();
        }
        let names: Vec<_> = self.backends.iter().map(|backend| &*backend.name).collect();
        names.join(", ")
    }

    /// Shows the hold of this moment, if the holder is a task of this process.
    pub(crate) fn show_own(&self, backend: usize, key: &LockKey, holder: &mut Holder) {
        let is_own = holder.mode == Mode::Exclusive && holder.owner.is_some();
        let info = holder.client_info.as_mut().filter(|info| is_own && info.is_this_process());
        let Some(info) = info else { return };
        match self.queues.holder(backend, key) {
            Some(own) if own.token == holder.token => holder.shown_by = ShownBy::ThisProcess,
            Some(own) if own.token < holder.token => {
                info.set_label(own.site);
                (holder.token, holder.shown_by) = (own.token, ShownBy::ThisProcess);
            }
            // It was lost, and somebody else has it.
            _ => {}
        }
    }

    /// Refuses new locks from now on.
    pub(crate) fn shut_down(&self) {
        self.background.close();
        self.shut_down.cancel();
    }

    /// Whether new locks are refused.
    pub(crate) fn is_shut_down(&self) -> bool {
        // Unlike the token's state, this is known without a mutex.
        self.background.is_closed()
    }

    /// Resolves when every hold is released, and nothing is under way in the background.
    pub(crate) async fn idle(&self) {
        while self.unfinished() > 0 {
            self.open_holds.none_left().await;
            self.background.wait().await;
        }
    }

    /// The number of holds and of tasks in the background.
    pub(crate) fn unfinished(&self) -> usize {
        self.open_holds.len() + self.background.len()
    }
}

impl NamedBackend {
    pub(crate) fn new(name: &str, index: usize, store: Box<dyn Backend>) -> Self {
        let (capabilities, outages) = (store.capabilities(), telemetry::Outages::default());
        Self { name: name.into(), index, capabilities, store, outages }
    }

    fn labels<'a>(&'a self, template: &'static str, key: &'a LockKey) -> Labels<'a> {
        Labels { template, key, store: Store::Backend(&self.name) }
    }

    /// Why this backend does not support these options with this ttl, if it does not.
    pub(crate) fn refuses(&self, ttl: Duration, options: &LockOptions) -> Option<String> {
        supported::refuses(&self.capabilities, ttl, options)
    }
}
