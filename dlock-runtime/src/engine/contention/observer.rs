//! Observes long waits: asks the store who holds a key that is held elsewhere, and publishes how old the oldest waits are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::ContendedKeys;
#[cfg(feature = "metrics")]
use super::State;
use super::key::Site;
use crate::backend::{Backend as _, Mode};
use crate::client_info::ClientInfo;
use crate::clock;
#[cfg(feature = "metrics")]
use crate::engine::local_queue::BackendIndex;
#[cfg(feature = "metrics")]
use crate::engine::telemetry::meters;
use crate::engine::{Engine, NamedBackend};
use crate::key::{KeyMap, LockKey};
use crate::{sync, timer};

/// How long a key has been held elsewhere when the store is asked for the first time.
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
            forget_published(&engine);
        }
    }
}

/// Publishes that nothing waits, for all that was published: nobody looks from now on.
fn forget_published(engine: &Engine) {
    #[cfg(feature = "metrics")]
    {
        let published = std::mem::take(&mut engine.contended.state().published);
        publish_oldest(engine, published.into_iter().map(|one| (one, Duration::ZERO)).collect());
    }
    #[cfg(not(feature = "metrics"))]
    let _ = engine;
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
            forget_published(&engine);
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
            return None;
        }
        if !engine.asks_who_holds {
            return Some(vec![]);
        }
        let questions = engine.backends.iter().zip(&mut state.keys);
        let questions = questions.filter_map(|(backend, keys)| {
            let due = keys.iter_mut().filter(|(_, key)| {
                let is_long = key.held_elsewhere_for(now).is_some_and(|held| held >= LONG);
                is_long && key.asked.is_none_or(|at| now >= at + ASK_AGAIN)
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
    let info = holder.client_info.as_ref();
    let site = info.map(ClientInfo::label);
    let is_own = holder.mode == Mode::Exclusive && info.is_some_and(ClientInfo::is_this_process);
    let now = clock::instant();
    if let Some(key) = engine.contended.state().of(backend.index).get_mut(key) {
        if is_own && site.is_some_and(|site| key.knows(site)) {
            // It was granted to a task of this engine meanwhile, which says so itself.
            return;
        }
        let site = site.map_or(Site::Unknown, |label| Site::Elsewhere(label.into()));
        key.resolve(site, Some(holder.token), now);
    }
}

/// Charges the waits up to now, so that a long wait shows before its end.
fn publish(engine: &Engine, now: Instant) {
    let mut state = engine.contended.state();
    state.charge_all(&engine.backends, now);
    let recordable = state.charged.take_recordable();
    #[cfg(feature = "metrics")]
    let oldest = oldest_waits(&mut state, now);
    drop(state);
    engine.record(recordable);
    #[cfg(feature = "metrics")]
    publish_oldest(engine, oldest);
}

/// How old the oldest wait of each template is: zero if there is none any more.
#[cfg(feature = "metrics")]
fn oldest_waits(state: &mut State, now: Instant) -> Ages {
    let mut ages: Ages = state.published.iter().map(|one| (*one, Duration::ZERO)).collect();
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
    state.published = present;
    ages
}

#[cfg(feature = "metrics")]
type Ages = std::collections::HashMap<(BackendIndex, &'static str), Duration>;

/// Without the mutex, because a recorder is the application's.
#[cfg(feature = "metrics")]
fn publish_oldest(engine: &Engine, ages: Ages) {
    for ((index, template), age) in ages {
        meters::oldest_wait(template, &engine.backends[index].name, age);
    }
}
