//! The state that the engine shares between threads, under the model checker [loom](https://docs.rs/loom).
//!
//! This crate compiles the engine's own sources with other primitives: `sync` has mutexes, atomics, notifications and
//! channels made of loom's, and `clock` and `timer` have a clock that stands still until a check moves it. Each check
//! runs a few threads through the engine again and again, in every order of their steps and with every value that the
//! memory model lets a load return. A check fails if an assertion does, if all threads wait for each other, or if two
//! threads touch what only one may touch at a time.
//!
//! | file in `checks/` | what is true in every order |
//! |---|---|
//! | `open_holds.rs` | A shutdown misses no removal of a hold, and sees what was done before it. |
//! | `local_queue.rs` | One task is at the front. A turn is never lost, even if waiters leave. A waiter whose time is up learns of the store's answer. |
//! | `hold.rs` | Whoever has learnt that a hold has ended, by whatever way, is never told that it is fine. The end wakes the body. |
//! | `closing.rs` | No renewal starts once a hold is closed, and a release waits for the one in flight. An extension waits for it too. |
//! | `passing.rs` | A lease that is passed on is received by one task, or recalled and released. |
//! | `watchdog.rs` | A hold is attended to when it is due, whenever it came. It does not outlive its watchdog. |
//! | `nesting.rs` | A nested call learns that the body which it entered under has ended. |
//! | `calls.rs` | Whole calls hold a key of the memory store one at a time. They leave no hold and no queue behind, even if one is cancelled. |
//!
//! **Bounds.** Two or three threads and one key. Most checks try all orders; those that use `explore_some` try the ones
//! in which threads are interrupted at most as often as it says.
//!
//! **What is not checked.** `Arc` is the standard library's, and moving the clock is a step of its own only for those
//! who sleep, so loom does not try orders that differ in nothing but their reference counts or readings of the clock.
//! `Semaphore`, `TaskTracker` and `CancellationToken` are tokio's, and each call of one is a single step; the notifications
//! and channels here do what tokio documents, but tokio's own code is not checked. Neither are stores, failures
//! and doubts of an acquire, releases in the background, two runtimes, and what loom cannot express: a load that returns
//! a value which is only stored later.
#![expect(unexpected_cfgs, reason = "the features of dlock-runtime are off here")]

pub mod checks;
mod clock;
mod sync;
mod timer;

/// The sources of dlock-runtime, without what the engine does not need.
#[path = "../../../dlock-runtime/src"]
#[expect(dead_code, unused_imports, reason = "much is only used by what is left out")]
mod runtime {
    pub mod backend;
    pub(crate) mod backoff;
    pub(crate) mod chance;
    pub(crate) mod client_info;
    pub(crate) mod contention;
    pub(crate) mod engine;
    pub(crate) mod error;
    pub(crate) mod guard;
    pub(crate) mod inversion;
    pub(crate) mod key;
    pub(crate) mod lock_table;
    pub(crate) mod mode;
    pub(crate) mod options;
    pub(crate) mod owner;
    pub(crate) mod stores;
    pub(crate) mod token;
}

use runtime::{
    backend, backoff, chance, client_info, contention, engine, error, guard, inversion, key,
    lock_table, mode, options, owner, stores, token,
};
