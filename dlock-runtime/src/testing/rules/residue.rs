//! Nothing is left behind because a key was once locked, neither in the store nor in the process.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::context::{Context, LONG, PATIENCE, ensure, left_in, short};
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

/// So many keys of each fate.
const EACH: usize = 8;

/// Everything that may become of an acquire.
const FATES: [&str; 8] = [
    "released",
    "dropped",
    "ran",
    "abandoned",
    "waited in vain",
    "gave up waiting",
    "forced",
    "revoked",
];

/// How a key is held; what the backend does not claim is left out.
fn kinds(able: Capabilities) -> Vec<&'static str> {
    let each =
        [("alone", true), ("shared", able.shared), ("permits", able.permits), ("fair", able.fair)];
    each.iter().filter(|(_, able)| *able).map(|(kind, _)| *kind).collect()
}

/// One process, and an operator or a rival beside it.
#[derive(Clone)]
struct Scene {
    registry: Registry,
    other: Registry,
    /// A process whose store answers no acquire.
    deaf: Registry,
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
    let (deaf, store) = context.intercepted().await?;
    store.hold_up(Call::Acquire);
    let (registry, other) = (context.registry().await?, context.registry().await?);
    let ttl = short(&store, Duration::from_millis(900));
    let scene = Scene { registry, other, deaf, store, ttl };
    let mut all = Vec::new();
    for kind in kinds(scene.store.capabilities()) {
        for fate in FATES {
            for number in 0..EACH {
                let key = context.key(&format!("{kind}:{fate}:{number}"));
                let meets = scene.clone().meets(key, kind, fate);
                all.push(async move {
                    meets.await.map_err(|problem| format!("{kind}, {fate}: {problem}"))
                });
            }
        }
    }
    join_all(all).await.into_iter().collect::<Finding>()?;
    scene.store.heal();
    for (name, registry) in [
        ("the process", &scene.registry),
        ("its rival", &scene.other),
        ("the deaf one", &scene.deaf),
    ] {
        let done = registry.shutdown(PATIENCE).await;
        done.map_err(|error| format!("{name}: {error}"))?;
        let left = left_in(registry);
        ensure!(left.is_none(), "{name} has {}", left.unwrap_or_default());
    }
    is_empty(&context, context.key("").as_str()).await
}

/// No lease was left to its ttl: that is long, but for those that were revoked.
async fn is_empty(context: &Context, prefix: &str) -> Finding {
    let store = context.backend().await?;
    let began = Instant::now();
    loop {
        let left = store.list(prefix).await.map_err(|error| error.to_string())?;
        let Some(first) = left.first() else { return Ok(()) };
        ensure!(
            began.elapsed() < PATIENCE / 2,
            "{} keys are still there, such as {first:?}",
            left.len()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Scene {
    async fn meets(self, key: LockKey, kind: &'static str, fate: &str) -> Finding {
        match fate {
            "abandoned" => self.abandons(&key, kind).await,
            "waited in vain" | "gave up waiting" => self.waits(&key, kind, fate).await,
            "forced" | "revoked" => self.ends(&key, kind, fate).await,
            _ => {
                let lock = lock(&self.registry, &key, kind).ttl(LONG).wait(PATIENCE);
                if fate == "ran" {
                    return lock.run(tokio::task::yield_now()).await.map_err(|e| e.to_string());
                }
                let guard = lock.acquire().await.map_err(|error| error.to_string())?;
                if fate == "dropped" {
                    drop(guard);
                    return Ok(());
                }
                guard.release().await.map_err(|error| error.to_string())
            }
        }
    }

    /// The request was sent; nobody hears the answer.
    async fn abandons(&self, key: &LockKey, kind: &str) -> Finding {
        let acquire = lock(&self.deaf, key, kind).ttl(LONG).wait(PATIENCE).acquire();
        let gone = tokio::time::timeout(Duration::from_millis(50), acquire).await;
        ensure!(gone.is_err(), "an acquire without an answer ended with {gone:?}");
        Ok(())
    }

    async fn waits(&self, key: &LockKey, kind: &str, fate: &str) -> Finding {
        let held = self.other.lock(key).ttl(LONG).acquire().await.map_err(|e| e.to_string())?;
        let wait = Duration::from_millis(200);
        if fate == "waited in vain" {
            let waited = lock(&self.registry, key, kind).wait(wait).acquire().await;
            // On a busy machine its store may not have answered in time.
            ensure!(
                waited.as_ref().is_err_and(LockError::is_transient),
                "waiting for a held key ended with {waited:?}"
            );
        } else {
            let acquire = lock(&self.registry, key, kind).wait(PATIENCE).acquire();
            let gone = tokio::time::timeout(wait, acquire).await;
            ensure!(gone.is_err(), "a held key was granted as {gone:?}");
        }
        held.release().await.map_err(|error| error.to_string())
    }

    /// An operator ends it while its body runs.
    async fn ends(&self, key: &LockKey, kind: &str, fate: &str) -> Finding {
        let operator = self.other.lock(key);
        let body = lock(&self.registry, key, kind).ttl(self.ttl).wait(PATIENCE).run(async {
            let ended = match fate {
                "forced" => operator.force_release().await,
                _ => operator.revoke().await,
            };
            ensure!(ended.map_err(|error| error.to_string())?, "there was no hold to end");
            std::future::pending::<Finding>().await
        });
        match tokio::time::timeout(self.ttl + PATIENCE, body).await {
            Ok(Err(LockError::Lost { completed: false, .. })) => Ok(()),
            Ok(Ok(finding)) => finding,
            ended => Err(format!("a hold that an operator ended, ended with {ended:?}")),
        }
    }
}
