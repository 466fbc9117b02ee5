//! What each kind of store can honour.

use std::time::Duration;

/// What a backend can honour; checked against every lock site when a registry is installed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Capabilities {
    /// The shortest ttl.
    pub min_ttl: Duration,
    /// The longest ttl.
    pub max_ttl: Duration,
    /// Can it keep a released key locked for the rest of a `min_hold`, also when the process ends?
    pub min_hold: bool,
    /// Are waiters told of a release, so that polling is only a safety net?
    pub push: bool,
    /// Do other processes share its locks?
    pub shared_by_processes: bool,
    /// Do waiters line up in the store itself, each told when it is its turn? Then
    /// [`Backend::acquire_queued`](super::Backend::acquire_queued) waits.
    pub queue: bool,
    /// Do locks last as long as the process's session with the store, rather than for a ttl each? Then a
    /// grant's or a renewal's validity is what is proved of the session, which may be far less than a
    /// ttl, and the engine renews it as often; and a hold that ends before its owner gives it back is
    /// released, since it would not end by itself.
    pub session: bool,
    /// Can a key be held by several that share it ([`Mode::Shared`](super::Mode::Shared))? Then a writer that waits is not
    /// passed by readers that come later.
    pub shared: bool,
    /// Can it be held by a counted number ([`Mode::Permits`](super::Mode::Permits))?
    pub permits: bool,
    /// Are waiters of all processes served in the order they came, if they ask for it ([`Claim::fair`](super::Claim::fair))?
    pub fair: bool,
    /// Does it take several keys in one step ([`Backend::try_acquire_set`](super::Backend::try_acquire_set))?
    /// Otherwise they are taken one after the other, and given back if one of them is busy.
    pub atomic_sets: bool,
}

impl Capabilities {
    /// What a plain lease store can do: any ttl from 1 ms to a day, `min_hold`, push, many processes;
    /// one holder at a time, and waiters in no order.
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

    /// The same with another shortest and longest ttl.
    #[must_use]
    pub const fn with_ttl(mut self, min: Duration, max: Duration) -> Self {
        self.min_ttl = min;
        self.max_ttl = max;
        self
    }

    /// The same with or without `min_hold`.
    #[must_use]
    pub const fn with_min_hold(mut self, min_hold: bool) -> Self {
        self.min_hold = min_hold;
        self
    }

    /// The same with or without push wake-up.
    #[must_use]
    pub const fn with_push(mut self, push: bool) -> Self {
        self.push = push;
        self
    }

    /// The same with or without a queue of the store's own.
    #[must_use]
    pub const fn with_queue(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// The same for a store that knows shared holders, permits and waiters in order.
    #[must_use]
    pub const fn with_every_kind(mut self) -> Self {
        self.shared = true;
        self.permits = true;
        self.fair = true;
        self
    }

    /// The same for a store that takes several keys in one step, or does not.
    #[must_use]
    pub const fn with_atomic_sets(mut self, atomic_sets: bool) -> Self {
        self.atomic_sets = atomic_sets;
        self
    }

    /// The same for locks that last as long as a session, or do not.
    #[must_use]
    pub const fn with_session(mut self, session: bool) -> Self {
        self.session = session;
        self
    }

    /// The same for a store that other processes share, or do not.
    #[must_use]
    pub const fn with_shared_by_processes(mut self, shared: bool) -> Self {
        self.shared_by_processes = shared;
        self
    }
}
