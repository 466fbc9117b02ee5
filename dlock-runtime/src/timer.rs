//! The timers of the engine: tokio's.

pub(crate) use tokio::time::{Sleep, sleep, sleep_until, timeout, timeout_at};
