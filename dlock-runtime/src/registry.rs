//! The registry: backends by name, and the engine that runs on top of them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::engine::Engine;
use crate::error::LockError;
use crate::key::LockKey;
use crate::lock::Lock;
use crate::site::Site;

mod builder;
mod install;
mod operators;
mod shutdown;

pub use builder::{BuildError, RegistryBuilder};
pub use install::{InstallError, SiteProblem};
pub use shutdown::{DrainLimits, ShutdownTimedOut};

static INSTALLED: OnceCell<Registry> = OnceCell::new();

tokio::task_local! {
    static SCOPED: Registry;
}

/// Backends by name, with the queues, renewals and background work of the locks acquired through them.
///
/// A process usually has one, [installed](RegistryBuilder::install) at startup. Tests build their
/// own and run in its [`scope`](Self::scope). Clones refer to the same registry.
///
/// ```
/// use dlock_runtime::{Registry, backend::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let locks = Registry::builder().backend("memory", Memory::new()).build()?;
/// let guard = locks.lock("product:1").acquire().await?;
/// println!("held with token {}", guard.fencing_token());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<Engine>);

impl Registry {
    /// Returns a builder for a registry.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// Returns the registry that is installed in this process.
    ///
    /// # Errors
    /// [`LockError::NotInstalled`] before [`RegistryBuilder::install`].
    pub fn global() -> Result<Self, LockError> {
        INSTALLED.get().cloned().ok_or(LockError::NotInstalled)
    }

    /// Returns the registry that annotated functions use here: that of the innermost
    /// [`scope`](Self::scope) of this task, otherwise the installed one.
    ///
    /// # Errors
    /// [`LockError::NotInstalled`] if there is neither.
    pub fn current() -> Result<Self, LockError> {
        Self::current_or_installed().map(|current| (*current).clone())
    }

    /// Like [`current`](Self::current), without a clone of the installed one.
    pub(crate) fn current_or_installed() -> Result<Current, LockError> {
        if let Ok(scoped) = SCOPED.try_with(Self::clone) {
            return Ok(Current::Scoped(scoped));
        }
        #[cfg(feature = "sim")]
        if let Some(registry) = crate::sim::registry() {
            return Ok(Current::Scoped(registry));
        }
        INSTALLED.get().map(Current::Installed).ok_or(LockError::NotInstalled)
    }

    /// Runs a future in which annotated functions use this registry instead of the installed one.
    ///
    /// The scope applies to the task that polls the future. Tasks spawned inside need their own scope.
    ///
    /// # Cancel safety
    /// Same as the future's.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        SCOPED.scope(self.clone(), future).await
    }

    /// Returns a lock for this key, not yet acquired; see [`Lock`] for its options.
    pub fn lock(&self, key: impl Into<LockKey>) -> Lock {
        Lock::one(self.clone(), key.into())
    }

    /// Returns the locks for these keys, to be acquired together: all or none, in one canonical order.
    pub fn lock_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Lock<Vec<LockKey>> {
        Lock::all(self.clone(), keys.into_iter().map(Into::into).collect())
    }

    /// Returns every annotated function of this binary, sorted by module and line, whether or not it
    /// is ever called.
    #[must_use]
    pub fn sites() -> Vec<&'static Site> {
        let mut sites: Vec<_> = inventory::iter::<&'static Site>().copied().collect();
        sites.sort_by_key(|site| (site.module_path(), site.file(), site.line()));
        sites
    }

    /// Returns the names of the registered backends, in the order they were added.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.0.backends().map(|backend| &*backend.name)
    }
}

/// The registry that annotated functions use.
pub(crate) enum Current {
    Installed(&'static Registry),
    Scoped(Registry),
}

impl Deref for Current {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        match self {
            Self::Installed(registry) => registry,
            Self::Scoped(registry) => registry,
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
