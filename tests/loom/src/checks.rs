//! The checks, one file for each part of the engine, and what they begin with.

mod alone;
mod calls;
mod closing;
mod exclusive;
mod hold;
mod local_queue;
mod nesting;
mod open_holds;
mod passing;
mod watchdog;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};

use crate::backend::{Backend, Claim, Memory};
use crate::clock::{self, Moment};
use crate::engine::hold::{Granted, Hold};
use crate::engine::local_queue::Turn;
use crate::engine::passing::Allowance;
use crate::engine::watchdog::Watchdog;
use crate::engine::{Engine, NamedBackend, Request};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::token::FencingToken;

/// A check and its name, which is a sentence that is true when the check passes.
pub type Check = (&'static str, fn());

/// All checks.
#[must_use]
pub fn all() -> Vec<Check> {
    let files = [
        open_holds::CHECKS,
        local_queue::CHECKS,
        hold::CHECKS,
        closing::CHECKS,
        passing::CHECKS,
        watchdog::CHECKS,
        nesting::CHECKS,
        calls::CHECKS,
    ];
    files.concat()
}

macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        pub(super) const CHECKS: &[super::Check] = &[$((stringify!($check), $check)),*];
    };
}
use checks;

/// Runs `run` in every order of its threads' steps.
fn explore(run: impl Fn() + Send + Sync + 'static) {
    explore_within(None, run);
}

/// The same for checks with too many orders, in all those in which threads are interrupted at most this often.
fn explore_some(interruptions: usize, run: impl Fn() + Send + Sync + 'static) {
    explore_within(Some(interruptions), run);
}

fn explore_within(interruptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    // Whoever acquires looks for the runtime.
    let _entered = RUNTIME.enter();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = interruptions;
    model.check(move || {
        clock::reset();
        run();
    });
}

/// No model spawns anything, but the engine wants to know the runtime.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().build().expect("it needs no driver")
});

/// An engine, and a watchdog that does nothing until its task runs.
#[derive(Clone)]
struct World {
    engine: Arc<Engine>,
    watchdog: Arc<Watchdog>,
}

const KEY: &str = "key";
const STORE: &str = "store";

/// Long enough to be out of the way.
const TTL: Duration = Duration::from_hours(1);

/// The age at which a renewal is due.
const RENEWAL_IS_DUE: Duration = Duration::from_mins(30);

impl World {
    fn new() -> Self {
        Self::with(Memory::new())
    }

    fn with(store: impl Backend) -> Self {
        let backend = NamedBackend::new(STORE, 0, Box::new(store));
        let runtime: &Handle = RUNTIME.handle();
        Self {
            engine: Arc::new(Engine::new(vec![Arc::new(backend)], TTL)),
            watchdog: Arc::new(Watchdog::new(runtime)),
        }
    }

    fn request(&self, options: &LockOptions) -> Request<'_> {
        let key = LockKey::from(KEY);
        Request::new(&self.engine, key, KEY, KEY.into(), options, Some(STORE))
            .expect("the store supports it")
    }

    /// A hold that was granted now.
    fn hold(&self, options: &LockOptions, turn: Option<Turn>) -> Arc<Hold> {
        self.hold_with(options, turn, 1)
    }

    /// A hold whose lease may be passed on.
    fn passable_hold(&self) -> Arc<Hold> {
        self.hold_with(&LockOptions::DEFAULT, Some(self.front()), 2)
    }

    fn hold_with(&self, options: &LockOptions, turn: Option<Turn>, tokens: u16) -> Arc<Hold> {
        let (request, since) = (self.request(options), Moment::now());
        let granted = Granted {
            is_passed: false,
            claim: Claim::new(request.key.clone(), TTL),
            token: FencingToken::new(1),
            since,
            proved: since,
            validity: TTL,
            in_doubt: false,
            allowance: Allowance::new(&request, tokens),
            turn,
        };
        Hold::begin(&self.engine, &request, granted, Arc::clone(&self.watchdog))
    }

    /// The front of the local queue of the key, which nobody has.
    fn front(&self) -> Turn {
        self.engine.queues.try_enter(0, &LockKey::from(KEY)).expect("nobody has it")
    }
}

/// A hold that nobody renews.
const UNRENEWED: LockOptions = LockOptions { renew: false, ..LockOptions::DEFAULT };
