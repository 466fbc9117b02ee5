//! How stores write owners and kinds.

use std::num::NonZeroU32;

use crate::backend::Mode;
use crate::owner::OwnerId;

/// Stands before the owner of a hold that was revoked.
pub(crate) const REVOKED: char = '~';

/// An owner as stores write it, that of a hold that was revoked in such a way that it is not found as its own.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) fn written(owner: OwnerId, revoked: bool) -> String {
    if revoked { format!("{REVOKED}{owner}") } else { owner.to_string() }
}

/// Reads back what [`written`] wrote: the owner, and whether its hold was revoked.
pub(crate) fn read(text: &str) -> Option<(OwnerId, bool)> {
    match text.strip_prefix(REVOKED) {
        Some(owner) => Some((OwnerId::parse(owner)?, true)),
        None => Some((OwnerId::parse(text)?, false)),
    }
}

/// Reads what [`Mode::code`] wrote.
pub(crate) fn mode(code: &str) -> Option<Mode> {
    match code {
        "x" => Some(Mode::Exclusive),
        "s" => Some(Mode::Shared),
        _ => Some(Mode::Permits(code.strip_prefix('p')?.parse::<NonZeroU32>().ok()?)),
    }
}
