//! The identity of a hold.

use std::fmt;

use crate::chance;

/// The identity of one hold: 128 random bits, drawn anew for every acquire.
///
/// Knowing it is required to renew or release the lease. It is displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId([u8; 16]);

impl OwnerId {
    /// Draws a new id from the thread's cryptographic generator, without a system call.
    #[must_use]
    pub fn random() -> Self {
        // As one number, because an array would draw four bytes for each of its sixteen.
        Self(chance::bits().to_be_bytes())
    }

    /// Creates an owner id from its sixteen bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Parses the 32 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        let plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u128::from_str_radix(digits, 16).ok().filter(|_| plain)?;
        Some(Self(value.to_be_bytes()))
    }

    /// The digits that `Display` writes, without the cost of formatting.
    #[cfg(feature = "redis")]
    pub(crate) fn digits(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        digits
    }

    /// Returns the sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
