//! The state that the engine shares between threads, under the model checker `loom`.
//!
//! This crate compiles the engine's own sources with other primitives: `sync` has mutexes, atomics, notifications and
//! channels made of loom's, and `clock` and `timer` have a clock that stands still until a check moves it. Each check
//! runs a few threads through the real code again and again, in every order of their steps, and with every value that
//! the memory model lets a load return.
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
    pub(crate) mod client_info;
    pub(crate) mod engine;
    pub(crate) mod error;
    pub(crate) mod guard;
    pub(crate) mod key;
    pub(crate) mod lock_table;
    pub(crate) mod mode;
    pub(crate) mod options;
    pub(crate) mod owner;
    pub(crate) mod stores;
    pub(crate) mod token;
}

use runtime::{
    backend, backoff, client_info, engine, error, guard, key, lock_table, mode, options, owner,
    stores, token,
};
