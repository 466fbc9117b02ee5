//! What all backends have in common: the local queue, acquiring, renewal, release, reentrancy and
//! the critical section.

mod acquire;
mod acquire_set;
mod critical;
mod enter;
mod hold;
mod queue;
mod reentrancy;
mod release;
mod watchdog;

pub(crate) use critical::run_guarded;
pub(crate) use enter::{Face, Want, enter, enter_set};
pub(crate) use hold::{Ending, Hold};
pub(crate) use queue::LocalQueues;
pub(crate) use reentrancy::{Inside, Nested};
pub(crate) use release::{give_back, give_back_later};
pub(crate) use watchdog::Watchdogs;
