//! How a queue node states its mode, and that its hold was revoked.
//!
//! etcd and ZooKeeper keep one node for each holder and waiter. Each store has its own names and values; these parts
//! are the same in both. Other versions of this crate read what is stored, so the forms must not change.

use std::num::NonZeroU32;

use crate::backend::Mode;

/// The tag of readers. That of permit holders is followed by their number of permits.
const SHARED: &str = "shared-";
const PERMITS: &str = "permits-";

/// Precedes the value of a node whose hold was revoked.
const REVOKED: char = '~';

/// The part of a node's name that states its mode. It is empty or ends with a dash.
pub(crate) fn mode_tag(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => String::new(),
        Mode::Shared => SHARED.to_owned(),
        Mode::Permits(permits) => format!("{PERMITS}{permits}-"),
    }
}

/// The mode of a node whose name starts with a tag.
#[cfg(feature = "etcd")]
pub(crate) fn mode_at_start(name: &str) -> Mode {
    let permits = name.strip_prefix(PERMITS).and_then(|rest| rest.split_once('-'));
    mode(permits.map(|(permits, _)| permits), name.starts_with(SHARED))
}

/// The mode of a node from the part of its name that ends with a tag. Another dash stands before the tag.
#[cfg(feature = "zookeeper")]
pub(crate) fn mode_at_end(part: &str) -> Mode {
    let permits = part.rsplit_once(PERMITS).filter(|(before, _)| before.ends_with('-'));
    let permits = permits.and_then(|(_, rest)| rest.strip_suffix('-'));
    let is_shared = part.strip_suffix(SHARED).is_some_and(|before| before.ends_with('-'));
    mode(permits, is_shared)
}

/// Fails closed: without a tag that can be read, nobody may hold the key beside this node.
fn mode(permits: Option<&str>, is_shared: bool) -> Mode {
    match permits.and_then(|permits| permits.parse::<NonZeroU32>().ok()) {
        Some(permits) => Mode::Permits(permits),
        None if is_shared => Mode::Shared,
        None => Mode::Exclusive,
    }
}

/// This value, marked as that of a revoked hold.
pub(crate) fn mark_revoked(value: &str) -> String {
    format!("{REVOKED}{value}")
}

/// Whether a value marks a revoked hold, and the value without the mark.
pub(crate) fn split_revoked(value: &str) -> (bool, &str) {
    (value.starts_with(REVOKED), value.trim_start_matches(REVOKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Mode = Mode::Permits(NonZeroU32::new(3).unwrap());

    #[test]
    fn tags_have_their_stored_form() {
        let tags = [Mode::Exclusive, Mode::Shared, THREE].map(mode_tag);
        assert_eq!(tags, ["", "shared-", "permits-3-"]);
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn a_tag_is_read_at_the_start_of_a_name() {
        for mode in [Mode::Exclusive, Mode::Shared, THREE] {
            assert_eq!(mode_at_start(&format!("{}0123", mode_tag(mode))), mode);
        }
        for name in ["", "shared", "permits-3", "permits-0-1", "permits-x-1", "1-shared-"] {
            assert_eq!(mode_at_start(name), Mode::Exclusive, "{name}");
        }
    }

    #[cfg(feature = "zookeeper")]
    #[test]
    fn a_tag_is_read_at_the_end_of_a_part() {
        for mode in [Mode::Exclusive, Mode::Shared, THREE] {
            assert_eq!(mode_at_end(&format!("0123-{}", mode_tag(mode))), mode);
        }
        let others = ["", "shared-", "1shared-", "permits-3-", "1permits-3-", "1-permits-0-"];
        for part in others.into_iter().chain(["1-permits-3", "1-permits-x-", "1-shared-x-"]) {
            assert_eq!(mode_at_end(part), Mode::Exclusive, "{part}");
        }
    }

    #[test]
    fn a_revoked_value_is_read_back() {
        assert_eq!(mark_revoked("a b"), "~a b");
        assert_eq!(split_revoked("~a b"), (true, "a b"));
        assert_eq!(split_revoked("a ~b"), (false, "a ~b"));
        assert_eq!(split_revoked(""), (false, ""));
    }
}
