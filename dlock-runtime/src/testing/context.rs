//! What a rule works with.

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

/// Repeats what fails transiently, as the engine does.
macro_rules! patiently {
    ($call:expr) => {
        patiently!("the backend failed", $call)
    };
    ($problem:literal, $call:expr) => {{
        let began = tokio::time::Instant::now();
        loop {
            match $call.await {
                Err(error) if error.is_transient() && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                answer => break answer.map_err(|error| format!("{}: {error}", $problem)),
            }
        }
    }};
}

/// A ttl so long that its end cannot stand in for cleaning up.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Within this time a key must be free again that was cleaned up rather than left to expire.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// How long one rule may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// A patience for what must come but may be late on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fresh backends and keys for one rule.
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

    /// A key that no other rule and no other run uses.
    pub(crate) fn key(&self, name: &str) -> LockKey {
        LockKey::from(format!("{}:{}:{name}", self.rule, self.run))
    }

    /// Another process's view of the store.
    pub(crate) async fn backend(&self) -> Result<Box<dyn Backend>, String> {
        // All rules of a batch connect at once, which may be too much for a busy machine.
        patiently!("could not connect", (self.connector)())
    }

    /// A registry over a backend of its own: what another process would have.
    pub(crate) async fn registry(&self) -> Result<Registry, String> {
        registry_over(self.backend().await?)
    }

    /// A registry whose calls to the backend can be counted, held up and failed.
    pub(crate) async fn intercepted(&self) -> Result<(Registry, Intercepted), String> {
        let store = Intercepted::new(self.backend().await?);
        Ok((registry_over(store.clone())?, store))
    }
}

fn registry_over(backend: impl Backend) -> Result<Registry, String> {
    let builder = Registry::builder().backend("tested", backend).default_ttl(LONG);
    builder.build().map_err(|error| error.to_string())
}

/// A ttl as short as this if the backend can do that, or else its shortest.
pub(crate) fn short(backend: &dyn Backend, wanted: Duration) -> Duration {
    wanted.max(backend.capabilities().min_ttl)
}

/// The process dies, as far as a rule can have it die: where locks last as long as a session, the session
/// ends; elsewhere nothing happens any more, and the leases run out. Gives back what is left of it.
pub(crate) fn dies(backend: Box<dyn Backend>) -> Option<Box<dyn Backend>> {
    (!backend.capabilities().session).then_some(backend)
}

/// Tries once and must succeed.
pub(crate) async fn granted(
    backend: &dyn Backend,
    claim: &Claim,
) -> Result<(FencingToken, Duration), String> {
    match attempt(backend, claim).await? {
        Attempt::Granted { token, validity, .. } => Ok((token, validity)),
        Attempt::Busy { .. } => Err(format!("`{}` is busy but nobody holds it", claim.key)),
    }
}

/// Tries once; true if it was granted.
pub(crate) async fn tries(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    Ok(matches!(attempt(backend, claim).await?, Attempt::Granted { .. }))
}

async fn attempt(backend: &dyn Backend, claim: &Claim) -> Result<Attempt, String> {
    patiently!(backend.try_acquire(claim))
}

/// Releases and must not fail; true if the claim held the key.
pub(crate) async fn releases(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    let released = patiently!(backend.release(claim, Release::default()))?;
    Ok(released == Released::Released)
}

/// Renews and must not fail; true if the claim held the key.
pub(crate) async fn renews(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    Ok(matches!(patiently!(backend.renew(claim))?, Renewal::Renewed { .. }))
}

/// Takes the key through a registry of its own and gives it back: it must be free soon.
pub(crate) async fn is_free_soon(context: &Context, key: &LockKey) -> Result<(), String> {
    let other = context.registry().await?;
    let began = tokio::time::Instant::now();
    let guard = other.lock(key).wait(SOON).acquire().await;
    let guard = guard.map_err(|error| format!("not free after {:?}: {error}", began.elapsed()))?;
    guard.release().await.map_err(|error| error.to_string())
}

/// Checks what is promised only to waiters that show themselves in time, which one may not have done on a
/// busy machine: what is broken fails each time.
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

/// Ends the lease of a held key from outside.
pub(crate) async fn force(operator: &Registry, key: &LockKey) -> Result<(), String> {
    let forced = operator.lock(key).force_release().await.map_err(|error| error.to_string())?;
    ensure!(forced, "there was no lease to end");
    Ok(())
}

/// Runs a future to its end in a runtime and a thread of its own. Both are gone when the answer is there.
pub(crate) async fn in_another_runtime<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let (send, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let value = a_runtime().map(|runtime| runtime.block_on(future));
        // Nobody may wait for it any more.
        let _ = send.send(value);
    });
    answer.await.map_err(|_| "panicked in another runtime".to_owned())?
}

/// The same in a runtime that is there until the sender is dropped, although nothing in it goes on.
pub(crate) async fn in_a_runtime_that_stands_still<T: Send + 'static>(
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
    runtime.map_err(|error| format!("there is no other runtime: {error}"))
}

/// What has this bound is done by then, also on a busy machine.
pub(crate) fn on_time(bound: Duration) -> Duration {
    bound + Duration::from_secs(5)
}

/// What is left in this process of locks that were taken through a registry.
pub(crate) fn left_in(registry: &Registry) -> Option<String> {
    let (queues, background) = (registry.0.queues.len(), registry.0.background.len());
    let message = || format!("{queues} local queues, {background} holds and background releases");
    (queues + background > 0).then(message)
}

/// A holder's work, a few milliseconds of it.
pub(crate) async fn work() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
