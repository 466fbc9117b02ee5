//! Shared by the tests: real servers, worker processes, and backends with defects.

pub mod defective;
pub mod faulty;
pub mod late;
pub mod logs;
pub mod proxy;
pub mod servers;
pub mod shifted;
pub mod trials;
pub mod workers;

/// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
