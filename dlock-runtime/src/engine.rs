//! What all backends have in common: the local queue, acquiring, renewal, release, reentrancy and
//! the critical section.

mod acquire;
mod acquire_set;
mod hold;
mod local_queue;
mod nesting;
mod release;
mod request;
mod run_guarded;
pub(crate) mod telemetry;
mod watchdog;

pub(crate) use hold::{Ending, Hold};
pub(crate) use local_queue::LocalQueues;
pub(crate) use nesting::{Inside, Nested};
pub(crate) use release::{give_back, give_back_later};
pub(crate) use request::{Face, Want, enter, enter_set};
pub(crate) use run_guarded::run_guarded;
pub(crate) use watchdog::Watchdogs;
