//! A lock on a majority of independent nodes.
//!
//! Redlock runs the [rounds](round). The [model] of its nodes is for simulations and tests.

#[cfg(any(test, feature = "sim"))]
pub(crate) mod model;
pub(crate) mod round;
