#![doc = include_str!("overview.md")]
#![warn(unreachable_pub)]

mod problem;
pub mod problems;
mod rejection;
mod scope;
mod serve;
mod shutdown;
mod signal;

pub use rejection::{LockRejection, status_of};
pub use scope::{ScopeLayer, ScopeService};
pub use serve::{Serve, serve};
pub use shutdown::ServeError;
pub use signal::shutdown_signal;
