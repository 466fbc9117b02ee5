//! A key that was locked once leaves nothing behind, neither in the store nor in the process.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::context::{Context, LONG, TIMEOUT, ensure, leftovers, short};
use super::super::{Call, Finding, Intercepted, Rule};
use super::rules;
use crate::backend::{Backend, Capabilities};
use crate::error::LockError;
use crate::key::LockKey;
use crate::mode::Mode;
use crate::registry::Registry;

pub(super) fn rules() -> Vec<Rule> {
    rules![nothing_is_left_behind]
}

/// The number of keys per outcome.
const EACH: usize = 8;

/// Every way in which an acquire can end.
const OUTCOMES: [&str; 8] =
    ["released", "dropped", "ran", "abandoned", "timed out", "wait dropped", "forced", "revoked"];

/// The kinds of locks that the backend supports.
fn kinds(able: Capabilities) -> Vec<&'static str> {
    let each = [
        ("exclusive", true),
        ("shared", able.shared),
        ("permits", able.permits),
        ("fair", able.fair),
    ];
    each.iter().filter(|(_, able)| *able).map(|(kind, _)| *kind).collect()
}

/// The processes of this rule.
#[derive(Clone)]
struct Scene {
    registry: Registry,
    /// An operator, or a rival.
    other: Registry,
    /// A process that never gets the answer to an acquire.
    unanswered: Registry,
    store: Intercepted,
    ttl: Duration,
}

fn lock(registry: &Registry, key: &LockKey, kind: &str) -> crate::Lock {
    let lock = registry.lock(key);
    match kind {
        "shared" => lock.mode(Mode::Shared),
        "permits" => lock.permits(NonZeroU32::MIN.saturating_add(1)),
        "fair" => lock.fair(true),
        _ => lock,
    }
}

async fn nothing_is_left_behind(context: Context) -> Finding {
    let (unanswered, store) = context.intercepted().await?;
    store.delay(Call::Acquire);
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let ttl = short(&store, Duration::from_millis(900));
    let scene = Scene { registry, other, unanswered, store, ttl };
    let mut all = Vec::new();
    for kind in kinds(scene.store.capabilities()) {
        for outcome in OUTCOMES {
            for number in 0..EACH {
                let key = context.key(&format!("{kind}:{outcome}:{number}"));
                let run = scene.clone().run(key, kind, outcome);
                all.push(async move {
                    run.await.map_err(|problem| format!("{kind}, {outcome}: {problem}"))
                });
            }
        }
    }
    join_all(all).await.into_iter().collect::<Finding>()?;
    scene.store.heal();
    for (name, registry) in [
        ("the process", &scene.registry),
        ("its rival", &scene.other),
        ("the process without answers", &scene.unanswered),
    ] {
        let done = registry.shutdown(TIMEOUT).await;
        done.map_err(|error| format!("{name}: {error}"))?;
        let left = leftovers(registry);
        ensure!(left.is_none(), "{name} still has {}", left.unwrap_or_default());
    }
    is_empty(&context, context.key("").as_str()).await
}

/// Checks that every key was released rather than left to expire. The ttl is longer than this wait, except for
/// keys that an operator ended.
async fn is_empty(context: &Context, prefix: &str) -> Finding {
    let store = context.backend().await?;
    let began = Instant::now();
    loop {
        let left = store.list(prefix).await.map_err(|error| error.to_string())?;
        let Some(first) = left.first() else { return Ok(()) };
        ensure!(
            began.elapsed() < TIMEOUT / 2,
            "{} keys are still there, such as {first:?}",
            left.len()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Scene {
    async fn run(self, key: LockKey, kind: &'static str, outcome: &str) -> Finding {
        match outcome {
            "abandoned" => self.abandon(&key, kind).await,
            "timed out" | "wait dropped" => self.wait(&key, kind, outcome).await,
            "forced" | "revoked" => self.end(&key, kind, outcome).await,
            _ => {
                let lock = lock(&self.registry, &key, kind).ttl(LONG).wait(TIMEOUT);
                if outcome == "ran" {
                    return lock.run(tokio::task::yield_now()).await.map_err(|e| e.to_string());
                }
                let guard = lock.acquire().await.map_err(|error| error.to_string())?;
                if outcome == "dropped" {
                    drop(guard);
                    return Ok(());
                }
                guard.release().await.map_err(|error| error.to_string())
            }
        }
    }

    /// The request is sent, but its caller is dropped before the answer.
    async fn abandon(&self, key: &LockKey, kind: &str) -> Finding {
        let acquire = lock(&self.unanswered, key, kind).ttl(LONG).wait(TIMEOUT).acquire();
        let gone = tokio::time::timeout(Duration::from_millis(50), acquire).await;
        ensure!(gone.is_err(), "an unanswered acquire ended with {gone:?}");
        Ok(())
    }

    async fn wait(&self, key: &LockKey, kind: &str, outcome: &str) -> Finding {
        let held = self.other.lock(key).ttl(LONG).acquire().await.map_err(|e| e.to_string())?;
        let wait = Duration::from_millis(200);
        if outcome == "timed out" {
            let waited = lock(&self.registry, key, kind).wait(wait).acquire().await;
            // On a busy machine the store may not answer in time.
            ensure!(
                waited.as_ref().is_err_and(LockError::is_transient),
                "waiting for a held key ended with {waited:?}"
            );
        } else {
            let acquire = lock(&self.registry, key, kind).wait(TIMEOUT).acquire();
            let gone = tokio::time::timeout(wait, acquire).await;
            ensure!(gone.is_err(), "a held key was granted as {gone:?}");
        }
        held.release().await.map_err(|error| error.to_string())
    }

    /// An operator ends the hold while its body runs.
    async fn end(&self, key: &LockKey, kind: &str, outcome: &str) -> Finding {
        let operator = self.other.lock(key);
        let body = lock(&self.registry, key, kind).ttl(self.ttl).wait(TIMEOUT).run(async {
            let ended = match outcome {
                "forced" => operator.force_release().await,
                _ => operator.revoke().await,
            };
            ensure!(ended.map_err(|error| error.to_string())?, "the operator found no hold to end");
            std::future::pending::<Finding>().await
        });
        match tokio::time::timeout(self.ttl + TIMEOUT, body).await {
            Ok(Err(LockError::Lost { completed: false, .. })) => Ok(()),
            Ok(Ok(finding)) => finding,
            ended => Err(format!("a hold that an operator ended returned {ended:?}")),
        }
    }
}
