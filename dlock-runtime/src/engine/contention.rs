//! Contention: which tasks of this process wait, and to which site each wait is charged.
//!
//! A call that does not wait pays for one load of an atomic. Nothing here decides anything: it is for people. So it uses
//! the standard library's mutex, and the model checker does not look at it.

mod blame;
mod key;
mod observer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::blame::{Charged, Recordable};
use self::key::{Key, Site};
use super::local_queue::BackendIndex;
use super::request::Request;
use super::telemetry::{meters, unharmed};
use super::{Engine, NamedBackend};
use crate::clock;
use crate::contention::{Contention, Waiting};
use crate::key::{KeyMap, LockKey};
use crate::token::FencingToken;

/// A hold of this process, as those that wait for its key see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalHolder {
    pub(crate) site: &'static str,
    pub(crate) token: FencingToken,
}

/// So that a hold of one key costs nothing more because tasks wait for another one.
const PARTS: usize = 32;

/// The contended keys of one engine.
#[derive(Debug, Default)]
pub(crate) struct ContendedKeys {
    /// How many keys tasks wait for, by a part of the key's hash: known without the mutex.
    contended: [AtomicUsize; PARTS],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By backend.
    keys: Vec<KeyMap<Key>>,
    charged: Charged,
    /// Whether the task that observes long waits runs.
    is_observed: bool,
    /// The backends and templates whose oldest wait was published last.
    #[cfg(feature = "metrics")]
    published: Vec<(BackendIndex, &'static str)>,
}

impl State {
    fn of(&mut self, backend: BackendIndex) -> &mut KeyMap<Key> {
        if self.keys.len() <= backend {
            self.keys.resize_with(backend + 1, KeyMap::default);
        }
        &mut self.keys[backend]
    }

    /// Charges every wait up to now.
    fn charge_all(&mut self, backends: &[Arc<NamedBackend>], now: Instant) {
        let Self { keys, charged, .. } = self;
        for (backend, keys) in backends.iter().zip(keys) {
            for (name, key) in keys {
                key.charge(now, |wait, charge, sums| {
                    charged.add(backend, name, wait, &charge, sums);
                });
            }
        }
    }
}

impl ContendedKeys {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, key: &LockKey) -> &AtomicUsize {
        &self.contended[key.part(PARTS)]
    }

    /// Notes that a task of this process holds the key from now on.
    pub(crate) fn note_hold(&self, backend: BackendIndex, key: &LockKey, holder: LocalHolder) {
        self.note(backend, key, |key, now| {
            key.hold(Site::Here(holder.site), Some(holder.token), now);
        });
    }

    /// Notes that no task of this process holds the key any more.
    pub(crate) fn note_release(&self, backend: BackendIndex, key: &LockKey) {
        self.note(backend, key, Key::release);
    }

    /// Notes that the store failed those who wait.
    pub(crate) fn note_failure(&self, backend: BackendIndex, key: &LockKey) {
        self.note(backend, key, |key, now| key.hold(Site::Store, None, now));
    }

    fn note(&self, backend: BackendIndex, key: &LockKey, note: impl FnOnce(&mut Key, Instant)) {
        if self.count(key).load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(key) = self.state().of(backend).get_mut(key) {
            note(key, clock::instant());
        }
    }
}

/// A call that waits for a key. Ends, and is charged, when it is dropped.
pub(super) struct ContendedWait<'a> {
    engine: &'a Engine,
    backend: Arc<NamedBackend>,
    key: LockKey,
    template: &'static str,
    /// `None` once it has ended.
    number: Option<usize>,
}

impl<'a> ContendedWait<'a> {
    /// Begins a wait. `holder`: the task of this process that holds the key, if one does.
    pub(super) fn begin(
        engine: &'a Arc<Engine>,
        request: &Request<'_>,
        began: Instant,
        holder: Option<LocalHolder>,
    ) -> Self {
        let Request { backend, key, template, .. } = request;
        unharmed(|| meters::wait_began(request.labels()));
        let contended = &engine.contended;
        let mut state = contended.state();
        let entry = state.of(backend.index).entry(key.clone()).or_insert_with(|| {
            contended.count(key).fetch_add(1, Ordering::Relaxed);
            match holder {
                Some(LocalHolder { site, token }) => Key::new(began, Site::Here(site), Some(token)),
                None => Key::new(began, Site::Unknown, None),
            }
        });
        let number = entry.begin(template, request.site(), began);
        let is_observed = std::mem::replace(&mut state.is_observed, true);
        drop(state);
        if !is_observed {
            observer::start(engine);
        }
        let number = Some(number);
        Self { engine, backend: Arc::clone(backend), key: key.clone(), template, number }
    }

    /// Whether it waits for this key.
    pub(super) fn is_for(&self, key: &LockKey) -> bool {
        self.key == *key
    }

    /// Ends the wait of a task that holds the key from now on.
    pub(super) fn end_with_hold(mut self, holder: LocalHolder) {
        self.end(Some(holder));
    }

    fn end(&mut self, holder: Option<LocalHolder>) {
        let Some(number) = self.number.take() else { return };
        let Self { engine, backend, key: name, template, .. } = self;
        let mut state = engine.contended.state();
        let State { keys, charged, .. } = &mut *state;
        if let Some(keys) = keys.get_mut(backend.index)
            && let Some(key) = keys.get_mut(name)
        {
            let now = clock::instant();
            key.end(number, now, |wait, charge, sums| {
                charged.add(backend, name, wait, &charge, sums);
            });
            if key.is_empty() {
                keys.remove(name);
                engine.contended.count(name).fetch_sub(1, Ordering::Relaxed);
            } else if let Some(LocalHolder { site, token }) = holder {
                key.hold(Site::Here(site), Some(token), now);
            }
        }
        let recordable = charged.take_recordable();
        drop(state);
        unharmed(|| {
            meters::wait_ended(backend.labels(template, name));
            engine.record(recordable);
        });
    }
}

impl Drop for ContendedWait<'_> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl Engine {
    /// Records what waits were charged: without the mutex, because a recorder is the application's.
    fn record(&self, recordable: Vec<Recordable>) {
        for Recordable { backend, template, holder, waited } in recordable {
            meters::blamed(template, &self.backends[backend].name, holder.name(), waited);
        }
    }

    /// Who waited for whom until now, and who waits.
    pub(crate) fn contention(&self) -> Contention {
        let now = clock::instant();
        let mut state = self.contended.state();
        state.charge_all(&self.backends, now);
        let recordable = state.charged.take_recordable();
        let name = |index: usize| self.backends[index].name.to_string();
        let blame = state.charged.to_blame(name);
        let mut waiting: Vec<Waiting> = Vec::new();
        for (backend, keys) in self.backends.iter().zip(&state.keys) {
            for (key, wait) in
                keys.iter().flat_map(|(key, of)| of.waits().map(move |wait| (key, wait)))
            {
                let age = now.saturating_duration_since(wait.began);
                add_waiting(&mut waiting, &backend.name, key, wait, age);
            }
        }
        drop(state);
        self.record(recordable);
        waiting.sort_by_key(|one| std::cmp::Reverse(one.oldest));
        let mut contention = Contention::default();
        (contention.blame, contention.waiting) = (blame, waiting);
        contention
    }
}

fn add_waiting(
    waiting: &mut Vec<Waiting>,
    backend: &str,
    key: &LockKey,
    wait: &key::Wait,
    age: Duration,
) {
    let same = |one: &&mut Waiting| {
        one.backend == backend && one.template == wait.template && one.waiter == wait.site
    };
    let Some(found) = waiting.iter_mut().find(same) else {
        waiting.push(Waiting {
            backend: backend.to_owned(),
            template: wait.template.to_owned(),
            waiter: wait.site.to_owned(),
            count: 1,
            oldest: age,
            oldest_key: key.clone(),
        });
        return;
    };
    found.count += 1;
    if age > found.oldest {
        (found.oldest, found.oldest_key) = (age, key.clone());
    }
}
