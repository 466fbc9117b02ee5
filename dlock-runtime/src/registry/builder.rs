//! The builder of a registry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Registry;
use crate::backend::Backend;
use crate::engine::{Engine, NamedBackend};
use crate::options::{Handover, LockOptions};

const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Collects backends and defaults for a [`Registry`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing before `install` or `build`"]
pub struct RegistryBuilder {
    pub(super) backends: Vec<(String, Box<dyn Backend>)>,
    pub(super) default_backend: Option<String>,
    pub(super) default_ttl: Option<Duration>,
    pub(super) default_handover: Handover,
    pub(super) never_asks_who_holds: bool,
    pub(super) unregistered: HashSet<String>,
}

impl RegistryBuilder {
    /// Registers a backend under the name that annotations refer to.
    pub fn backend(mut self, name: impl Into<String>, backend: impl Backend) -> Self {
        self.backends.push((name.into(), Box::new(backend)));
        self
    }

    /// Sets the backend of locks that name none. A registry's only backend is its default automatically.
    pub fn default_backend(mut self, name: impl Into<String>) -> Self {
        self.default_backend = Some(name.into());
        self
    }

    /// Sets the ttl of locks that set none; 30 s if not set.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Sets how far this process may pass a lease from task to task, for locks that do not say so themselves;
    /// [`Handover::DEFAULT`] if not set.
    pub fn default_handover(mut self, handover: Handover) -> Self {
        self.default_handover = handover;
        self
    }

    /// Sets whether the store is asked who holds a lock that callers of this process have waited for, see
    /// [`Registry::contention`]; true if not set.
    pub fn asks_who_holds(mut self, asks: bool) -> Self {
        self.never_asks_who_holds = !asks;
        self
    }

    /// Makes [`install`](Self::install) ignore sites that name this unregistered backend, such as those
    /// of a linked library that this process never calls. A call of such a site still fails.
    pub fn allow_unregistered(mut self, name: impl Into<String>) -> Self {
        self.unregistered.insert(name.into());
        self
    }

    /// Builds a registry without installing it or verifying any site, for tests and libraries.
    ///
    /// # Errors
    /// No backend, an empty or duplicate name, a default backend that is not registered, or a default
    /// ttl that the default backend does not support.
    pub fn build(self) -> Result<Registry, BuildError> {
        if self.backends.is_empty() {
            return Err(BuildError::NoBackend);
        }
        let default_ttl = self.default_ttl.unwrap_or(DEFAULT_TTL);
        let mut backends: Vec<Arc<NamedBackend>> = Vec::with_capacity(self.backends.len());
        for (name, store) in self.backends {
            if name.trim().is_empty() {
                return Err(BuildError::EmptyName);
            }
            if backends.iter().any(|other| *other.name == *name) {
                return Err(BuildError::DuplicateName(name));
            }
            let index = backends.len();
            backends.push(Arc::new(NamedBackend::new(&name, index, store)));
        }
        #[cfg(feature = "metrics")]
        crate::metrics::describe();
        let only = (backends.len() == 1).then_some(0);
        let mut engine = Engine::new(backends, default_ttl);
        engine.default_handover = self.default_handover;
        engine.asks_who_holds = !self.never_asks_who_holds;
        engine.default_backend = match self.default_backend {
            Some(name) => match engine.find(Some(&name)) {
                Ok(found) => Some(found.index),
                Err(_) => {
                    return Err(BuildError::UnknownDefault { name, registered: engine.names() });
                }
            },
            None => only,
        };
        if let Ok(backend) = engine.find(None)
            && let Some(problem) = backend.refuses(default_ttl, &LockOptions::DEFAULT)
        {
            return Err(BuildError::DefaultTtl { backend: backend.name.to_string(), problem });
        }
        Ok(Registry(Arc::new(engine)))
    }
}

/// Why a registry could not be built.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It has no backend.
    #[error("a registry needs at least one backend: add `.backend(name, backend)`")]
    NoBackend,
    /// A backend's name is empty.
    #[error("a backend's name is empty")]
    EmptyName,
    /// Two backends have the same name.
    #[error("two backends are registered as `{0}`")]
    DuplicateName(String),
    /// The default backend is not registered.
    #[error("the default backend `{name}` is not registered (registered: {registered})")]
    UnknownDefault {
        /// The requested name.
        name: String,
        /// The registered names.
        registered: String,
    },
    /// The default ttl is outside the default backend's limits.
    #[error("backend `{backend}` cannot honour the default {problem}")]
    DefaultTtl {
        /// The default backend.
        backend: String,
        /// What it does not support.
        problem: String,
    },
}

crate::debug_as_display::debug_as_display!(BuildError);
