//! The timers of the engine: tokio's. A simulation has to know when they fire, so that it can skip the time until then.

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::time::{Sleep, sleep, sleep_until, timeout, timeout_at};

#[cfg(feature = "sim")]
pub(crate) use crate::sim::timer::{Sleep, sleep, sleep_until, timeout, timeout_at};
