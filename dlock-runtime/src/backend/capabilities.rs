//! What each kind of store supports.

use std::time::Duration;

/// What a backend supports; checked against every lock site when a registry is installed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent capability")]
pub struct Capabilities {
    /// The shortest ttl.
    pub min_ttl: Duration,
    /// The longest ttl.
    pub max_ttl: Duration,
    /// Can it keep a released key locked for the rest of a `min_hold`, even after the process ends?
    pub min_hold: bool,
    /// Are waiters notified of a release, so that polling is only a safety net?
    pub push: bool,
    /// Do other processes share its locks?
    pub shared_by_processes: bool,
    /// Do waiters queue in the store itself, each notified when its turn comes? Then
    /// [`Backend::acquire_queued`](super::Backend::acquire_queued) waits.
    pub queue: bool,
    /// Do locks last as long as the process's session with the store, rather than for a ttl each? Then the
    /// validity of a grant or renewal is the proven validity of the session, which may be far shorter than
    /// a ttl, and the engine renews accordingly often. A hold that is lost before its owner releases it is
    /// released by the engine, because it would not expire while the session lasts.
    pub session: bool,
    /// Can several holders share a key ([`Mode::Shared`](super::Mode::Shared))? Then later readers must not overtake a
    /// waiting writer.
    pub shared: bool,
    /// Does it count permits ([`Mode::Permits`](super::Mode::Permits))?
    pub permits: bool,
    /// Does it serve fair waiters ([`Claim::fair`](super::Claim::fair)) of all processes in order of arrival?
    pub fair: bool,
    /// Does it acquire several keys in one step ([`Backend::try_acquire_set`](super::Backend::try_acquire_set))?
    /// Otherwise keys are acquired one after the other, and released if one of them is busy.
    pub atomic_sets: bool,
}

impl Capabilities {
    /// A plain lease store: any ttl from 1 ms to 24 h, `min_hold`, push, shared by processes; one holder
    /// at a time, and waiters in no order.
    pub const LEASES: Self = Self {
        min_ttl: Duration::from_millis(1),
        max_ttl: Duration::from_hours(24),
        min_hold: true,
        push: true,
        shared_by_processes: true,
        queue: false,
        session: false,
        shared: false,
        permits: false,
        fair: false,
        atomic_sets: false,
    };

    /// Sets the shortest and the longest ttl.
    #[must_use]
    pub const fn with_ttl(mut self, min: Duration, max: Duration) -> Self {
        self.min_ttl = min;
        self.max_ttl = max;
        self
    }

    /// Sets [`min_hold`](Self::min_hold).
    #[must_use]
    pub const fn with_min_hold(mut self, min_hold: bool) -> Self {
        self.min_hold = min_hold;
        self
    }

    /// Sets [`push`](Self::push).
    #[must_use]
    pub const fn with_push(mut self, push: bool) -> Self {
        self.push = push;
        self
    }

    /// Sets [`queue`](Self::queue).
    #[must_use]
    pub const fn with_queue(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// Adds shared holds, permits and fair waiters.
    #[must_use]
    pub const fn with_every_kind(mut self) -> Self {
        self.shared = true;
        self.permits = true;
        self.fair = true;
        self
    }

    /// Sets [`atomic_sets`](Self::atomic_sets).
    #[must_use]
    pub const fn with_atomic_sets(mut self, atomic_sets: bool) -> Self {
        self.atomic_sets = atomic_sets;
        self
    }

    /// Sets [`session`](Self::session).
    #[must_use]
    pub const fn with_session(mut self, session: bool) -> Self {
        self.session = session;
        self
    }

    /// Sets [`shared_by_processes`](Self::shared_by_processes).
    #[must_use]
    pub const fn with_shared_by_processes(mut self, shared: bool) -> Self {
        self.shared_by_processes = shared;
        self
    }
}
