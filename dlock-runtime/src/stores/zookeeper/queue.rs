//! The queue of one key: its folder, the names in it, and who stands before whom.
//!
//! Names are those of Curator's `InterProcessMutex`: `_c_<uuid>-lock-<sequence>`. The uuid is the claim's
//! owner, by which a node is found whose creation was never answered. Who shares the key says so before the
//! word `lock`, which is where Curator looks for the sequence: to its mutexes it is one who came earlier.

use std::num::NonZeroU32;

use percent_encoding::percent_decode_str;

use crate::backend::Mode;
use crate::key::LockKey;
use crate::owner::OwnerId;

/// What stands between the owner and the sequence.
const LOCK: &str = "lock-";

/// What stands before that for readers, and, with their number, for holders of permits.
const SHARED: &str = "-shared-";
const PERMITS: &str = "-permits-";

/// One who stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueNode {
    pub(super) name: String,
    pub(super) sequence: i32,
    pub(super) mode: Mode,
}

/// The folder of a key: one component that reads as the key does where it can.
pub(super) fn folder(root: &str, key: &LockKey) -> String {
    let mut path = String::with_capacity(root.len() + key.as_str().len() + 1);
    path.push_str(root);
    path.push('/');
    let all_dots = key.as_str().bytes().all(|byte| byte == b'.');
    for character in key.as_str().chars() {
        match character {
            // The first two separate components and begin an escape; the rest is refused in names.
            '/'
            | '%'
            | '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fff0}'..='\u{ffff}' => escape(&mut path, character),
            // So are `.` and `..`.
            '.' if all_dots => escape(&mut path, character),
            plain => path.push(plain),
        }
    }
    path
}

/// The key of a folder of this name.
pub(super) fn key(folder: &str) -> Option<LockKey> {
    Some(LockKey::from(&*percent_decode_str(folder).decode_utf8().ok()?))
}

fn escape(path: &mut String, character: char) {
    use std::fmt::Write;
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        // Writing into a `String` does not fail.
        let _ = write!(path, "%{byte:02X}");
    }
}

/// What the name of an owner's node begins with, before its sequence.
pub(super) fn prefix(owner: &OwnerId, mode: Mode) -> String {
    let kind = match mode {
        Mode::Exclusive => "-".to_owned(),
        Mode::Shared => SHARED.to_owned(),
        Mode::Permits(permits) => format!("{PERMITS}{permits}-"),
    };
    format!("{}{kind}{LOCK}", identity(owner))
}

/// What the name of an owner's node begins with, of whatever kind it is.
pub(super) fn identity(owner: &OwnerId) -> String {
    let digits = owner.to_string();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("_c_{}", groups.join("-"))
}

/// Whose node this is, if it is one of ours.
pub(super) fn owner(name: &str) -> Option<OwnerId> {
    let uuid = name.strip_prefix("_c_")?.get(..36)?;
    OwnerId::parse(&uuid.replace('-', ""))
}

/// Who this is, if it is the name or the path of one who stands in a queue.
pub(super) fn entry(name: String) -> Option<QueueNode> {
    let at = name.rfind(LOCK)?;
    let sequence = name[at + LOCK.len()..].parse().ok()?;
    let before = &name[..at];
    let permits = before.rsplit_once(PERMITS).and_then(|(_, rest)| rest.strip_suffix('-'));
    let mode = match permits.and_then(|permits| permits.parse::<NonZeroU32>().ok()) {
        Some(permits) => Mode::Permits(permits),
        None if before.ends_with(SHARED) => Mode::Shared,
        None => Mode::Exclusive,
    };
    Some(QueueNode { name, sequence, mode })
}

/// Those who stand in the queue, among the names in its folder.
pub(super) fn entries(names: Vec<String>) -> Vec<QueueNode> {
    names.into_iter().filter_map(entry).collect()
}

/// Those who stand before this one, in their order.
pub(super) fn before(entries: Vec<QueueNode>, own: i32) -> Vec<QueueNode> {
    // The server's counter wraps around: what counts is the way from one to the other.
    let distance = |entry: &QueueNode| own.wrapping_sub(entry.sequence);
    let mut before: Vec<_> = entries.into_iter().filter(|entry| distance(entry) > 0).collect();
    before.sort_by_key(|entry| std::cmp::Reverse(distance(entry)));
    before
}

/// All of them, in their order.
pub(super) fn in_order(mut entries: Vec<QueueNode>) -> Vec<QueueNode> {
    let any = entries.first().map_or(0, |entry| entry.sequence);
    entries.sort_by_key(|entry| entry.sequence.wrapping_sub(any));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(sequences: &[i32]) -> Vec<QueueNode> {
        entries(sequences.iter().map(|sequence| format!("_c_x-lock-{sequence:010}")).collect())
    }

    #[test]
    fn a_plain_key_is_its_own_folder_and_others_do_not_meet() {
        assert_eq!(folder("/dlock", &"product:100".into()), "/dlock/product:100");
        assert_eq!(folder("", &"a/b%".into()), "/a%2Fb%25");
        assert_eq!(folder("", &"..".into()), "/%2E%2E");
        assert_eq!(folder("", &"a.b\n".into()), "/a.b%0A");
        for key in ["product:100", "a/b%2F", ".."].map(LockKey::from) {
            assert_eq!(super::key(&folder("", &key)[1..]), Some(key));
        }
    }

    #[test]
    fn a_nodes_owner_is_found_in_its_name() {
        let owner = OwnerId::random();
        for mode in [Mode::Exclusive, Mode::Shared, Mode::Permits(NonZeroU32::MAX)] {
            let name = format!("{}0000000007", prefix(&owner, mode));
            assert_eq!(super::owner(&name), Some(owner));
            assert!(name.starts_with(&identity(&owner)));
            assert_eq!(entries(vec![name.clone()]), [QueueNode { name, sequence: 7, mode }]);
        }
        assert_eq!(super::owner("lock-0000000001"), None);
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let names = ["lock-", "x-lock-12a", "__READ__0000000001", "leases"].map(str::to_owned);
        assert_eq!(entries(names.to_vec()), []);
    }

    fn sequences(entries: &[QueueNode]) -> Vec<i32> {
        entries.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn each_stands_behind_those_with_smaller_numbers() {
        let all = queue(&[12, 7, 9]);
        assert_eq!(sequences(&before(all.clone(), 12)), [7, 9]);
        assert_eq!(sequences(&before(all.clone(), 7)), []);
        assert_eq!(sequences(&in_order(all)), [7, 9, 12]);
    }

    #[test]
    fn the_order_outlives_the_counters_turn() {
        let all = queue(&[i32::MIN, i32::MAX - 1, i32::MIN + 1, i32::MAX]);
        let before = before(all.clone(), i32::MIN + 1);
        assert_eq!(sequences(&before), [i32::MAX - 1, i32::MAX, i32::MIN]);
        let all = in_order(all);
        assert_eq!(sequences(&all), [i32::MAX - 1, i32::MAX, i32::MIN, i32::MIN + 1]);
    }
}
