//! The registry: backends by name, and everything that runs on their behalf.

use std::fmt;
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
pub use shutdown::ShutdownTimedOut;

static INSTALLED: OnceCell<Registry> = OnceCell::new();

tokio::task_local! {
    static SCOPED: Registry;
}

/// Backends by name, with the queues, renewals and background work of the locks taken through it.
///
/// A process has usually one, [installed](RegistryBuilder::install) when it starts; tests build
/// their own and [`scope`](Self::scope) it. Clones are the same registry.
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
    /// Begins a registry.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The registry that this process has installed.
    ///
    /// # Errors
    /// [`LockError::NotInstalled`] before [`RegistryBuilder::install`].
    pub fn global() -> Result<Self, LockError> {
        INSTALLED.get().cloned().ok_or(LockError::NotInstalled)
    }

    /// The registry that annotated functions use here: that of the innermost [`scope`](Self::scope)
    /// of this task, otherwise the installed one.
    ///
    /// # Errors
    /// [`LockError::NotInstalled`] if there is neither.
    pub fn current() -> Result<Self, LockError> {
        SCOPED.try_with(Self::clone).or_else(|_| Self::global())
    }

    /// Runs a future in which annotated functions use this registry instead of the installed one.
    ///
    /// It holds for the task that polls the future; tasks spawned inside need a scope of their own.
    ///
    /// # Cancel safety
    /// That of the future.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        SCOPED.scope(self.clone(), future).await
    }

    /// A lock that can be taken; see [`Lock`] for its options.
    pub fn lock(&self, key: impl Into<LockKey>) -> Lock {
        Lock::one(self.clone(), key.into())
    }

    /// Several locks that can be taken together: all or nothing, in one canonical order.
    pub fn lock_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Lock<Vec<LockKey>> {
        Lock::all(self.clone(), keys.into_iter().map(Into::into).collect())
    }

    /// Every annotated function of this binary, in the order of module and line, whether or not it
    /// is ever called.
    #[must_use]
    pub fn sites() -> Vec<&'static Site> {
        let mut sites: Vec<_> = inventory::iter::<&'static Site>().copied().collect();
        sites.sort_by_key(|site| (site.module_path(), site.file(), site.line()));
        sites
    }

    /// The names of the registered backends, in the order they were added.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.0.backends().map(|backend| &*backend.name)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
