//! Seeded random choices.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::Nanos;

/// A stream of random choices. Streams of one seed with different names are independent, so that a fault which is left
/// out does not change the choices that other parts of the simulation make.
#[derive(Debug)]
pub(crate) struct Chance(StdRng);

impl Chance {
    /// The stream with this number.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&stream.to_le_bytes());
        Self(StdRng::from_seed(bytes))
    }

    pub(crate) fn bits(&mut self) -> u128 {
        self.0.random()
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn between(&mut self, least: f64, most: f64) -> f64 {
        self.0.random_range(least..=most)
    }

    /// A number less than `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit.max(1))
    }

    pub(super) fn happens(&mut self, probability: f64) -> bool {
        // Drawn even if it cannot happen, so that the later choices are the same.
        self.0.random::<f64>() < probability
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// From nothing to `most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Nanos {
        self.0.random_range(0..=super::nanos(most))
    }

    /// The time until the next event of a process whose events are this far apart on average.
    pub(super) fn until_next(&mut self, mean: Duration) -> Nanos {
        let uniform: f64 = self.0.random();
        // Never zero, and never so far that it does not fit.
        super::nanos(mean.mul_f64((-(1.0 - uniform).ln()).clamp(0.001, 20.0)))
    }
}
