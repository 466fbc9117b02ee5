//! The text forms of owners and modes in stores.

use std::num::NonZeroU32;

use crate::backend::Mode;
use crate::owner::OwnerId;

/// Precedes the owner of a revoked hold.
pub(crate) const REVOKED: char = '~';

/// Encodes an owner for stores. The mark of a revoked hold makes sure that its owner no longer finds it.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) fn written(owner: OwnerId, revoked: bool) -> String {
    if revoked { format!("{REVOKED}{owner}") } else { owner.to_string() }
}

/// Parses the output of [`written`]: the owner, and whether its hold was revoked.
pub(crate) fn read(text: &str) -> Option<(OwnerId, bool)> {
    match text.strip_prefix(REVOKED) {
        Some(owner) => Some((OwnerId::parse(owner)?, true)),
        None => Some((OwnerId::parse(text)?, false)),
    }
}

/// Parses the output of [`Mode::code`].
pub(crate) fn mode(code: &str) -> Option<Mode> {
    match code {
        "x" => Some(Mode::Exclusive),
        "s" => Some(Mode::Shared),
        _ => Some(Mode::Permits(code.strip_prefix('p')?.parse::<NonZeroU32>().ok()?)),
    }
}
