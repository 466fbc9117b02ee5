//! Observes long waits: asks the store who holds a key that is held elsewhere, and publishes how old the oldest waits are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::ContendedKeys;
#[cfg(feature = "metrics")]
use super::State;
use super::key::Site;
use crate::backend::Backend as _;
use crate::client_info::ClientInfo;
use crate::clock;
use crate::engine::{Engine, NamedBackend};
use crate::key::{KeyMap, LockKey};
use crate::{sync, timer};

/// How long a task has waited when the store is asked for the first time.
const LONG: Duration = Duration::from_millis(100);

/// The time between two questions about one key.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The time between two questions to one backend.
const PACE: Duration = Duration::from_millis(100);

/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How often what is observed is published.
const PUBLISH: Duration = Duration::from_secs(1);

/// Starts the task that observes while there are waits. It ends with the last of them, and with its runtime.
pub(super) fn start(engine: &Arc<Engine>) {
    let mut observed = Observed { engine: Arc::downgrade(engine), ended: false };
    let can_run = sync::HAS_BACKGROUND && !is_simulated() && !engine.is_shut_down();
    let runtime = Handle::try_current().ok().filter(|_| can_run);
    let Some(runtime) = runtime else { return };
    let over = engine.shut_down.clone();
    runtime.spawn(async move {
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            () = observe(&mut observed) => {}
        }
    });
}

/// A simulation has schedules of its own, in which nobody looks.
fn is_simulated() -> bool {
    #[cfg(feature = "sim")]
    return crate::sim::clock::is_simulated();
    #[cfg(not(feature = "sim"))]
    false
}

/// The engine that is observed. The next wait starts another observer once this one has ended, in whatever way.
struct Observed {
    engine: Weak<Engine>,
    /// It has noted its end.
    ended: bool,
}

impl Drop for Observed {
    fn drop(&mut self) {
        if !self.ended
            && let Some(engine) = self.engine.upgrade()
        {
            engine.contended.state().is_observed = false;
        }
    }
}

async fn observe(observed: &mut Observed) {
    let mut published = clock::instant();
    loop {
        timer::sleep(PACE).await;
        // Not held while it sleeps, so that it does not keep the engine.
        let Some(engine) = observed.engine.upgrade() else { return };
        let now = clock::instant();
        if now.saturating_duration_since(published) >= PUBLISH {
            published = now;
            publish(&engine, now);
        }
        let Some(questions) = engine.contended.questions(&engine, now) else {
            observed.ended = true;
            return;
        };
        for (backend, key) in questions {
            ask(&engine, &backend, &key).await;
        }
    }
}

impl ContendedKeys {
    /// The next question to each backend. `None`: nobody waits, and the observer ends.
    fn questions(
        &self,
        engine: &Engine,
        now: Instant,
    ) -> Option<Vec<(Arc<NamedBackend>, LockKey)>> {
        let mut state = self.state();
        if state.keys.iter().all(KeyMap::is_empty) {
            // Under the mutex: the next wait starts another observer.
            state.is_observed = false;
            #[cfg(feature = "metrics")]
            publish_oldest(engine, &mut state, now);
            return None;
        }
        if !engine.asks_who_holds {
            return Some(vec![]);
        }
        let questions = engine.backends.iter().zip(&mut state.keys);
        let questions = questions.filter_map(|(backend, keys)| {
            let due = keys.iter_mut().filter(|(_, key)| {
                let is_long = key.oldest().is_some_and(|oldest| now >= oldest + LONG);
                is_long
                    && key.is_held_elsewhere()
                    && key.asked.is_none_or(|at| now >= at + ASK_AGAIN)
            });
            let (name, key) = due.min_by_key(|(_, key)| (key.asked, key.oldest()))?;
            key.asked = Some(now);
            Some((Arc::clone(backend), name.clone()))
        });
        Some(questions.collect())
    }
}

async fn ask(engine: &Engine, backend: &NamedBackend, key: &LockKey) {
    // A failure concerns nobody: those who wait meet it themselves.
    let Ok(Ok(Some(holder))) = timer::timeout(TIMEOUT, backend.store.inspect(key)).await else {
        return;
    };
    let site = holder.client_info.as_ref().map(ClientInfo::label);
    let site = site.map_or(Site::Unknown, |label| Site::Elsewhere(label.into()));
    let now = clock::instant();
    if let Some(key) = engine.contended.state().of(backend.index).get_mut(key) {
        key.resolve(site, Some(holder.token), now);
    }
}

/// Charges the waits up to now, so that a long wait shows before its end.
fn publish(engine: &Engine, now: Instant) {
    let mut state = engine.contended.state();
    state.charge_all(&engine.backends, now);
    #[cfg(feature = "metrics")]
    publish_oldest(engine, &mut state, now);
}

/// Publishes how old the oldest wait of each template is: zero if there is none any more.
#[cfg(feature = "metrics")]
fn publish_oldest(engine: &Engine, state: &mut State, now: Instant) {
    use std::collections::HashMap;

    use crate::engine::telemetry::meters;

    let mut ages: HashMap<_, Duration> =
        state.published.iter().map(|published| (*published, Duration::ZERO)).collect();
    let mut present = Vec::new();
    for (index, keys) in state.keys.iter().enumerate() {
        for wait in keys.values().flat_map(super::key::Key::waits) {
            let age = now.saturating_duration_since(wait.began);
            let oldest = ages.entry((index, wait.template)).or_default();
            *oldest = (*oldest).max(age);
            if !present.contains(&(index, wait.template)) {
                present.push((index, wait.template));
            }
        }
    }
    for ((index, template), age) in ages {
        meters::oldest_wait(template, &engine.backends[index].name, age);
    }
    state.published = present;
}
