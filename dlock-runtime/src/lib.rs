//! Declarative distributed locks.
#![doc = include_str!("guide/overview.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(unreachable_pub)]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
pub mod backend;
mod backoff;
pub mod blocking;
mod chance;
mod client_info;
mod clock;
#[cfg(feature = "config")]
pub mod config;
mod connect;
mod contention;
mod debug_as_display;
mod engine;
mod error;
pub mod fencing;
mod guard;
pub mod guide;
mod inversion;
mod key;
mod lock;
mod lock_table;
#[cfg(feature = "metrics")]
pub mod metrics;
mod mode;
#[cfg(any(feature = "config", feature = "postgres", feature = "mysql"))]
mod nearest;
mod options;
mod owner;
mod registry;
#[cfg(feature = "serde")]
mod serialized;
#[cfg(feature = "sim")]
pub mod sim;
mod site;
mod stores;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;
mod token;
pub mod transaction;

#[doc(inline)]
pub use backend::Backend;
pub use client_info::ClientInfo;
pub use connect::connect;
pub use contention::{Blame, Contention, HolderSite, Waiting};
pub use dlock_macros::{assert_locked, distributed_lock};
pub use engine::{HoldState, States};
pub use error::{BackendError, HeldBy, LockError, LostReason};
pub use guard::{LockGuard, LockSet};
pub use inversion::{Inversion, Nesting};
pub use key::{LockKey, MAX_KEY_BYTES};
pub use lock::Lock;
pub use mode::Mode;
pub use options::{Handover, OnLost, Wait};
pub use owner::OwnerId;
pub use registry::{
    BuildError, DrainLimits, InstallError, Registry, RegistryBuilder, ShutdownTimedOut, SiteProblem,
};
pub use site::Site;
pub use token::FencingToken;
