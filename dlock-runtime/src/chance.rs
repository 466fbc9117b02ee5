//! The random choices of the engine: from the thread's cryptographic generator, or from a simulation's seed.

/// 128 random bits.
pub(crate) fn bits() -> u128 {
    #[cfg(feature = "sim")]
    if let Some(bits) = crate::sim::clock::draw(crate::sim::chance::Chance::bits) {
        return bits;
    }
    rand::random()
}

/// A random number from `least` to `most`.
pub(crate) fn between(least: f64, most: f64) -> f64 {
    #[cfg(feature = "sim")]
    if let Some(number) = crate::sim::clock::draw(|chance| chance.between(least, most)) {
        return number;
    }
    rand::random_range(least..=most)
}
