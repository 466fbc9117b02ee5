//! The queue of one key: its folder, the names in it, and who stands before whom.
//!
//! Names are those of Curator's `InterProcessMutex`: `_c_<uuid>-lock-<sequence>`. The uuid is the claim's
//! owner, by which a node is found whose creation was never answered.

use crate::key::LockKey;
use crate::owner::OwnerId;

/// What stands between the owner and the sequence.
const LOCK: &str = "lock-";

/// One who stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) sequence: i32,
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

fn escape(path: &mut String, character: char) {
    use std::fmt::Write;
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        // Writing into a `String` does not fail.
        let _ = write!(path, "%{byte:02X}");
    }
}

/// What the name of an owner's node begins with.
pub(super) fn prefix(owner: &OwnerId) -> String {
    let digits = owner.to_string();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("_c_{}-{LOCK}", groups.join("-"))
}

/// Whose node this is, if it is one of ours.
pub(super) fn owner(name: &str) -> Option<OwnerId> {
    let uuid = name.strip_prefix("_c_")?.get(..36)?;
    OwnerId::parse(&uuid.replace('-', ""))
}

/// Who this is, if it is the name or the path of one who stands in a queue.
pub(super) fn entry(name: String) -> Option<Entry> {
    let at = name.rfind(LOCK)? + LOCK.len();
    let sequence = name[at..].parse().ok()?;
    Some(Entry { name, sequence })
}

/// Those who stand in the queue, among the names in its folder.
pub(super) fn entries(names: Vec<String>) -> Vec<Entry> {
    names.into_iter().filter_map(entry).collect()
}

/// Who stands right before this one; nobody if it is the first.
pub(super) fn predecessor(entries: &[Entry], own: i32) -> Option<&Entry> {
    // The server's counter wraps around: what counts is the way from one to the other.
    let distance = |entry: &&Entry| own.wrapping_sub(entry.sequence);
    entries.iter().filter(|entry| distance(entry) > 0).min_by_key(distance)
}

/// Who stands first.
pub(super) fn first(entries: &[Entry]) -> Option<&Entry> {
    entries.iter().find(|entry| predecessor(entries, entry.sequence).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(sequences: &[i32]) -> Vec<Entry> {
        entries(sequences.iter().map(|sequence| format!("_c_x-lock-{sequence:010}")).collect())
    }

    #[test]
    fn a_plain_key_is_its_own_folder_and_others_do_not_meet() {
        assert_eq!(folder("/dlock", &"product:100".into()), "/dlock/product:100");
        assert_eq!(folder("", &"a/b%".into()), "/a%2Fb%25");
        assert_eq!(folder("", &"..".into()), "/%2E%2E");
        assert_eq!(folder("", &"a.b\n".into()), "/a.b%0A");
    }

    #[test]
    fn a_nodes_owner_is_found_in_its_name() {
        let owner = OwnerId::random();
        let name = format!("{}0000000007", prefix(&owner));
        assert_eq!(super::owner(&name), Some(owner));
        assert_eq!(super::owner("lock-0000000001"), None);
        assert_eq!(entries(vec![name.clone()]), [Entry { name, sequence: 7 }]);
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let names = ["lock-", "x-lock-12a", "__READ__0000000001", "leases"].map(str::to_owned);
        assert_eq!(entries(names.to_vec()), []);
    }

    #[test]
    fn each_stands_behind_the_next_smaller_one() {
        let all = queue(&[12, 7, 9]);
        assert_eq!(predecessor(&all, 12).unwrap().sequence, 9);
        assert_eq!(predecessor(&all, 9).unwrap().sequence, 7);
        assert_eq!(predecessor(&all, 7), None);
        assert_eq!(first(&all).unwrap().sequence, 7);
    }

    #[test]
    fn the_order_outlives_the_counters_turn() {
        let all = queue(&[i32::MIN, i32::MAX - 1, i32::MIN + 1, i32::MAX]);
        assert_eq!(first(&all).unwrap().sequence, i32::MAX - 1);
        assert_eq!(predecessor(&all, i32::MIN).unwrap().sequence, i32::MAX);
        assert_eq!(predecessor(&all, i32::MIN + 1).unwrap().sequence, i32::MIN);
    }
}
