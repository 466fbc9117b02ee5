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

/// The texts of an error and of its causes, as a log has them.
#[must_use]
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text += ": ";
        text += &source.to_string();
        cause = source.source();
    }
    text
}

/// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
