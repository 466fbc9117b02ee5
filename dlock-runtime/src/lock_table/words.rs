//! How stores write owners and kinds.

use std::num::NonZeroU32;

use crate::backend::Sharing;
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

/// Reads what [`Sharing::code`] wrote.
pub(crate) fn sharing(code: &str) -> Option<Sharing> {
    match code {
        "x" => Some(Sharing::Exclusive),
        "s" => Some(Sharing::Shared),
        _ => Some(Sharing::Permits(code.strip_prefix('p')?.parse::<NonZeroU32>().ok()?)),
    }
}
