//! The context of a rule, and helpers for writing rules.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Connector, Finding, Intercepted};
use crate::backend::{Attempt, Backend, Claim, Release, Released, Renewal};
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::registry::Registry;
use crate::token::FencingToken;

/// Ends the rule with a finding unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

/// Retries a call that fails transiently, as the engine does.
macro_rules! retrying {
    ($call:expr) => {
        retrying!("the backend failed", $call)
    };
    ($problem:literal, $call:expr) => {{
        let began = tokio::time::Instant::now();
        loop {
            match $call.await {
                Err(error) if error.is_transient() && began.elapsed() < TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                answer => break answer.map_err(|error| format!("{}: {error}", $problem)),
            }
        }
    }};
}

pub(crate) use retrying;

/// A ttl so long that expiry cannot be mistaken for a release.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The time within which a key must be free if it was released rather than left to expire.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// The timeout of one rule.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// A generous timeout for events that must happen but may be late on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Provides fresh backends and keys to one rule.
#[derive(Clone)]
pub struct Context {
    rule: &'static str,
    run: String,
    connector: Connector,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(rule: &'static str, connector: Connector) -> Self {
        let run = OwnerId::random().to_string()[..8].to_owned();
        Self { rule, run, connector }
    }

    /// Returns a key that no other rule and no other run uses.
    pub(crate) fn key(&self, name: &str) -> LockKey {
        LockKey::from(format!("{}:{}:{name}", self.rule, self.run))
    }

    /// Connects to the store as another process would.
    pub(crate) async fn backend(&self) -> Result<Box<dyn Backend>, String> {
        // All rules of a batch connect at once, which can overload a busy machine.
        retrying!("could not connect", (self.connector)())
    }

    /// Creates a registry with its own backend, as another process would.
    pub(crate) async fn registry(&self) -> Result<Registry, String> {
        registry_over(self.backend().await?)
    }

    /// Creates a registry whose calls to the backend can be counted, delayed and made to fail.
    pub(crate) async fn intercepted(&self) -> Result<(Registry, Intercepted), String> {
        let store = Intercepted::new(self.backend().await?);
        Ok((registry_over(store.clone())?, store))
    }
}

fn registry_over(backend: impl Backend) -> Result<Registry, String> {
    let builder = Registry::builder().backend("tested", backend).default_ttl(LONG);
    builder.build().map_err(|error| error.to_string())
}

/// Returns the wanted ttl, or the shortest ttl of the backend if that is longer.
pub(crate) fn short(backend: &dyn Backend, wanted: Duration) -> Duration {
    wanted.max(backend.capabilities().min_ttl)
}

/// Simulates the death of a process. On a session backend, the session ends. On other backends, the process sends
/// nothing more and its leases expire. Returns the backend if it is still usable.
pub(crate) fn kill(backend: Box<dyn Backend>) -> Option<Box<dyn Backend>> {
    (!backend.capabilities().session).then_some(backend)
}

/// Acquires once, and fails the rule if the key is busy.
pub(crate) async fn granted(
    backend: &dyn Backend,
    claim: &Claim,
) -> Result<(FencingToken, Duration), String> {
    match attempt(backend, claim).await? {
        Attempt::Granted { token, validity, .. } => Ok((token, validity)),
        Attempt::Busy { .. } => Err(format!("`{}` is busy although nobody holds it", claim.key)),
    }
}

/// Tries to acquire once. Returns true if the claim was granted.
pub(crate) async fn tries(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    Ok(matches!(attempt(backend, claim).await?, Attempt::Granted { .. }))
}

/// Tries to acquire once, and fails the rule on an error.
pub(crate) async fn attempt(backend: &dyn Backend, claim: &Claim) -> Result<Attempt, String> {
    retrying!(backend.try_acquire(claim))
}

/// Releases, and fails the rule on an error. Returns true if the claim held the key.
pub(crate) async fn releases(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    let released = retrying!(backend.release(claim, Release::default()))?;
    Ok(released == Released::Released)
}

/// Renews, and fails the rule on an error. Returns true if the claim held the key.
pub(crate) async fn renews(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    Ok(matches!(retrying!(backend.renew(claim))?, Renewal::Renewed { .. }))
}

/// Acquires and releases the key through another registry, and fails the rule unless it is free soon.
pub(crate) async fn is_free_soon(context: &Context, key: &LockKey) -> Result<(), String> {
    let other = context.registry().await?;
    let began = tokio::time::Instant::now();
    let guard = other.lock(key).wait(SOON).acquire().await;
    let guard = guard.map_err(|error| format!("not free after {:?}: {error}", began.elapsed()))?;
    guard.release().await.map_err(|error| error.to_string())
}

/// Runs a check up to three times, with another key each time. For checks that depend on timing and may fail by
/// chance on a busy machine, while a broken backend fails every time.
pub(crate) async fn in_three_tries<F>(context: &Context, check: impl Fn(LockKey) -> F) -> Finding
where
    F: Future<Output = Finding>,
{
    let mut finding = Ok(());
    for number in 0..3 {
        finding = check(context.key(&number.to_string())).await;
        if finding.is_ok() {
            break;
        }
    }
    finding
}

/// Force-releases a held key, as an operator would.
pub(crate) async fn force(operator: &Registry, key: &LockKey) -> Result<(), String> {
    let forced = operator.lock(key).force_release().await.map_err(|error| error.to_string())?;
    ensure!(forced, "a forced release of a held key found no lease");
    Ok(())
}

/// Runs a future to completion in its own runtime and thread. The runtime has shut down when this returns.
pub(crate) async fn in_another_runtime<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let (send, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let value = a_runtime().map(|runtime| runtime.block_on(future));
        // The receiver may be gone.
        let _ = send.send(value);
    });
    answer.await.map_err(|_| "panicked in another runtime".to_owned())?
}

/// Like [`in_another_runtime`], but the runtime exists until the sender is dropped, and nothing in it makes progress.
pub(crate) async fn in_a_stalled_runtime<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<(T, mpsc::Sender<()>), String> {
    let (send, answer) = oneshot::channel();
    let (over, is_over) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = a_runtime();
        let _ = send
            .send(runtime.as_ref().map(|runtime| runtime.block_on(future)).map_err(Clone::clone));
        let _ = is_over.recv();
    });
    let value = answer.await.map_err(|_| "panicked in another runtime".to_owned())?;
    Ok((value?, over))
}

fn a_runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("could not start another runtime: {error}"))
}

/// Adds a margin for a busy machine to a bound.
pub(crate) fn on_time(bound: Duration) -> Duration {
    bound + Duration::from_secs(5)
}

/// Describes what a registry still has in this process after its locks were released, or returns `None`.
pub(crate) fn leftovers(registry: &Registry) -> Option<String> {
    let (queues, background) = (registry.0.queues.len(), registry.0.unfinished());
    let message = || format!("{queues} local queues, {background} holds and background releases");
    (queues + background > 0).then(message)
}

/// The work of a holder, a few milliseconds long.
pub(crate) async fn work() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
