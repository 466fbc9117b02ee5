//! The stored form: the keys of a queue, their values, and the ids of leases.
//!
//! Other versions of this crate read it, so it must not change.

use percent_encoding::percent_decode_str;

use crate::backend::{Claim, Mode};
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::stores::shared::queue_codec::{mark_revoked, mode_at_start, mode_tag, split_revoked};

/// Replaces the owner while a released lock is kept for the rest of a `min_hold`.
const KEPT: &str = "-";

/// What a claim stores, and where.
pub(super) struct Names {
    /// The prefix of all keys of the queue.
    pub(super) queue: String,
    pub(super) own: String,
    pub(super) value: String,
}

/// What the value of a key says. Whatever cannot be read is `None`.
pub(super) struct Value {
    pub(super) owner: Option<OwnerId>,
    pub(super) revoked: bool,
    pub(super) client_info: Option<ClientInfo>,
}

impl Names {
    pub(super) fn new(prefix: &str, claim: &Claim) -> Self {
        let queue = queue(prefix, &claim.key);
        let own = format!("{queue}{}{}", mode_tag(claim.mode), claim.owner);
        let value = format!("{} {}", claim.owner, claim.client_info.to_text());
        Self { queue, own, value }
    }

    /// The value after a revocation.
    pub(super) fn revoked_value(&self) -> String {
        mark_revoked(&self.value)
    }
}

impl Value {
    pub(super) fn parse(stored: &[u8]) -> Self {
        let (revoked, stored) = split_revoked(std::str::from_utf8(stored).unwrap_or_default());
        let (owner, client_info) = stored.split_once(' ').unwrap_or((stored, ""));
        let client_info = ClientInfo::parse(client_info);
        Self { owner: OwnerId::parse(owner), revoked, client_info }
    }
}

/// The value of a key that is kept for the rest of a `min_hold`.
pub(super) fn kept_value(client_info: &ClientInfo) -> String {
    format!("{KEPT} {}", client_info.to_text())
}

/// The prefix of all keys in the queue of this key.
pub(super) fn queue(prefix: &str, key: &LockKey) -> String {
    let mut queue = queues(prefix, key.as_str());
    queue.push('/');
    queue
}

/// The prefix of the queues of all keys with this prefix.
pub(super) fn queues(prefix: &str, key_prefix: &str) -> String {
    let mut queues = String::with_capacity(prefix.len() + key_prefix.len() + 1);
    queues.push_str(prefix);
    // An unescaped slash would make the queue of one key a prefix of another key's queue.
    for character in key_prefix.chars() {
        match character {
            '%' => queues.push_str("%25"),
            '/' => queues.push_str("%2F"),
            plain => queues.push(plain),
        }
    }
    queues
}

/// The key to whose queue this stored key belongs.
pub(super) fn lock_key(prefix: &str, stored: &[u8]) -> Option<LockKey> {
    let stored = std::str::from_utf8(stored).ok()?.strip_prefix(prefix)?;
    let (key, _) = stored.rsplit_once('/')?;
    Some(LockKey::from(&*percent_decode_str(key).decode_utf8().ok()?))
}

/// The mode that the last component of a stored key states.
pub(super) fn mode(stored: &[u8]) -> Mode {
    mode_of(stored.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
}

/// The mode that a stored key states behind the prefix of its queue.
pub(super) fn mode_in(queue: &str, stored: &[u8]) -> Mode {
    mode_of(&stored[queue.len().min(stored.len())..])
}

fn mode_of(name: &[u8]) -> Mode {
    mode_at_start(std::str::from_utf8(name).unwrap_or_default())
}

/// The id of the lease for the rest of a `min_hold`, from the owner's random bits: a repeated release finds it.
pub(super) fn kept_lease(owner: &OwnerId) -> i64 {
    let bits = u128::from_be_bytes(*owner.as_bytes());
    i64::try_from((bits & u128::from(u64::MAX)) >> 1).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OWNER: &str = "80000000000000060000000000000009";

    fn claim(mode: Mode) -> Claim {
        let mut claim = Claim::new("a/b%".into(), Duration::from_secs(5)).with_mode(mode);
        claim.owner = OwnerId::parse(OWNER).unwrap();
        claim
    }

    #[test]
    fn keys_and_values_have_their_stored_form() {
        let permits = Mode::Permits(3.try_into().unwrap());
        for (mode, tag) in
            [(Mode::Exclusive, ""), (Mode::Shared, "shared-"), (permits, "permits-3-")]
        {
            let claim = claim(mode);
            let names = Names::new("dlock/", &claim);
            assert_eq!(names.queue, "dlock/a%2Fb%25/");
            assert_eq!(names.own, format!("dlock/a%2Fb%25/{tag}{OWNER}"));
            assert_eq!(names.value, format!("{OWNER} {}", claim.client_info.to_text()));
            assert_eq!(names.revoked_value(), format!("~{}", names.value));
            assert_eq!(self::mode(names.own.as_bytes()), mode);
            assert_eq!(mode_in(&names.queue, names.own.as_bytes()), mode);
            assert_eq!(lock_key("dlock/", names.own.as_bytes()), Some(claim.key));
        }
        let client_info = ClientInfo::new("x");
        assert_eq!(kept_value(&client_info), format!("- {}", client_info.to_text()));
    }

    #[test]
    fn a_value_is_read_back() {
        let claim = claim(Mode::Exclusive);
        let names = Names::new("dlock/", &claim);
        for (stored, revoked) in [(names.value.clone(), false), (names.revoked_value(), true)] {
            let value = Value::parse(stored.as_bytes());
            assert_eq!((value.owner, value.revoked), (Some(claim.owner), revoked));
            assert_eq!(
                value.client_info.map(|read| read.to_text()),
                Some(claim.client_info.to_text())
            );
        }
        assert_eq!(Value::parse(kept_value(&claim.client_info).as_bytes()).owner, None);
        let unreadable = Value::parse(b"~\xff");
        assert!(unreadable.owner.is_none() && unreadable.client_info.is_none());
    }

    #[test]
    fn the_lease_of_a_min_hold_is_positive() {
        let owner = OwnerId::parse(OWNER).unwrap();
        assert_eq!(kept_lease(&owner), 4);
        assert_eq!(kept_lease(&OwnerId::from_bytes([0; 16])), 1);
        assert_eq!(kept_lease(&OwnerId::from_bytes([0xff; 16])), i64::MAX);
    }
}
