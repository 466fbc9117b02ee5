//! The registry: backends by name, and everything that runs on their behalf.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, Capabilities, Sharing};
use crate::engine::telemetry::Failures;
use crate::engine::{LocalQueues, Watchdogs};
use crate::error::LockError;
use crate::key::LockKey;
use crate::lock::Lock;
use crate::options::LockOptions;
use crate::site::Site;
use crate::stores::STORES;

mod install;
mod operators;
mod shutdown;

pub use install::{BuildError, InstallError, SiteProblem};
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
pub struct Registry(pub(crate) Arc<RegistryInner>);

pub(crate) struct RegistryInner {
    backends: Vec<Arc<Registered>>,
    default_backend: Option<usize>,
    pub(crate) default_ttl: Duration,
    pub(crate) queues: Arc<LocalQueues>,
    pub(crate) watchdogs: Watchdogs,
    /// Every hold, and the releases and undone acquires that nobody waits for.
    pub(crate) background: TaskTracker,
    pub(crate) shut_down: CancellationToken,
    hold_numbers: AtomicU64,
    pub(crate) disagreements: Disagreements,
}

/// Where two numbers of permits were met: by backend and key template.
#[derive(Debug, Default)]
pub(crate) struct Disagreements(Mutex<HashSet<(usize, &'static str)>>);

impl Disagreements {
    /// True for the first time.
    pub(crate) fn note(&self, backend: usize, template: &'static str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((backend, template))
    }
}

/// A backend under its name.
pub(crate) struct Registered {
    pub(crate) name: Arc<str>,
    pub(crate) index: usize,
    pub(crate) capabilities: Capabilities,
    pub(crate) store: Box<dyn Backend>,
    /// What was logged of its failures.
    pub(crate) failures: Failures,
}

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
        self.0.backends.iter().map(|backend| &*backend.name)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RegistryInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("backends", &self.backends)
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.store.kind())
    }
}

impl RegistryInner {
    /// The backend of this name, or the default one.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&Arc<Registered>, LockError> {
        let index = match name {
            None => self.default_backend,
            Some(name) => self.backends.iter().position(|backend| &*backend.name == name),
        };
        index.map(|index| &self.backends[index]).ok_or_else(|| LockError::UnknownBackend {
            name: name.unwrap_or("(default)").into(),
            registered: self.names().into(),
        })
    }

    fn names(&self) -> String {
        if self.backends.is_empty() {
            return "none".to_owned();
        }
        let names: Vec<_> = self.backends.iter().map(|backend| &*backend.name).collect();
        names.join(", ")
    }

    pub(crate) fn next_hold_number(&self) -> u64 {
        self.hold_numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Registered {
    /// Why this backend cannot honour these options with this ttl, if it cannot.
    pub(crate) fn refuses(&self, ttl: Duration, options: &LockOptions) -> Option<String> {
        refuses(&self.capabilities, ttl, options)
    }
}

fn refuses(able: &Capabilities, ttl: Duration, options: &LockOptions) -> Option<String> {
    if ttl < able.min_ttl {
        return Some(format!("ttl = {ttl:?}: its shortest is {:?}", able.min_ttl));
    }
    if ttl > able.max_ttl {
        return Some(format!("ttl = {ttl:?}: its longest is {:?}", able.max_ttl));
    }
    if options.min_hold.is_some() && !able.min_hold {
        return Some("min_hold: it cannot keep a lock that nobody holds".to_owned());
    }
    if let Some(min_hold) = options.min_hold.filter(|min_hold| *min_hold > able.max_ttl) {
        return Some(format!("min_hold = {min_hold:?}: its longest is {:?}", able.max_ttl));
    }
    match options.sharing {
        Sharing::Shared if !able.shared => {
            return Some("mode = \"shared\": it grants a key to one holder at a time".to_owned());
        }
        Sharing::Permits(permits) if !able.permits => {
            return Some(format!("permits = {permits}: it does not count holders"));
        }
        _ => {}
    }
    if options.fair && !able.fair {
        return Some("fair = true: its waiters stand in no order".to_owned());
    }
    None
}

/// The kinds of backends that come with dlock and can honour these options, in a list for people.
fn able_kinds(ttl: Duration, options: &LockOptions) -> String {
    let able = STORES.iter().filter(|store| refuses(&store.capabilities, ttl, options).is_none());
    able.map(|store| store.kind).collect::<Vec<_>>().join(", ")
}

/// Collects backends and defaults for a [`Registry`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing before `install` or `build`"]
pub struct RegistryBuilder {
    backends: Vec<(String, Box<dyn Backend>)>,
    default_backend: Option<String>,
    default_ttl: Option<Duration>,
    unregistered: HashSet<String>,
}

impl RegistryBuilder {
    /// Registers a backend under a name that annotations refer to.
    pub fn backend(mut self, name: impl Into<String>, backend: impl Backend) -> Self {
        self.backends.push((name.into(), Box::new(backend)));
        self
    }

    /// Names the backend of locks that name none. A registry's only backend is its default by itself.
    pub fn default_backend(mut self, name: impl Into<String>) -> Self {
        self.default_backend = Some(name.into());
        self
    }

    /// The ttl of locks that state none; 30 s unless set.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Lets [`install`](Self::install) pass over sites that name this unregistered backend: those of
    /// a linked library that this process never calls. Such a call still fails.
    pub fn allow_unregistered(mut self, name: impl Into<String>) -> Self {
        self.unregistered.insert(name.into());
        self
    }
}
