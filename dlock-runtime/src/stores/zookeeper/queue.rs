//! The queue of one key: its folder, the names of its nodes, and their order.
//!
//! The names are those of Curator's `InterProcessMutex`: `_c_<uuid>-lock-<sequence>`. The uuid is the claim's owner, by
//! which a node is found whose create was never answered. A reader or a permit has its mode before the word `lock`,
//! because Curator looks for the sequence behind that word. Curator's mutexes then treat the node as a mutex that came
//! earlier. Other clients read these names, so they must not change.

use percent_encoding::percent_decode_str;

use crate::backend::{Claim, Mode};
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::stores::shared::node_queue::{InQueue, QueueView};
use crate::stores::shared::queue_codec::{mode_at_end, mode_tag};

/// Precedes the sequence in a node's name.
const LOCK: &str = "lock-";

/// The node of a holder or a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueNode {
    pub(super) name: String,
    pub(super) sequence: i32,
    mode: Mode,
}

impl InQueue for QueueNode {
    fn mode(&self) -> Mode {
        self.mode
    }
}

/// The folder of a key: one path component that is as readable as the key.
pub(super) fn folder(root: &str, key: &LockKey) -> String {
    let mut path = String::with_capacity(root.len() + key.as_str().len() + 1);
    path.push_str(root);
    path.push('/');
    let all_dots = key.as_str().bytes().all(|byte| byte == b'.');
    for character in key.as_str().chars() {
        match character {
            // A slash separates components, `%` starts an escape, and ZooKeeper rejects the rest in names.
            '/'
            | '%'
            | '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fff0}'..='\u{ffff}' => escape(&mut path, character),
            // ZooKeeper rejects `.` and `..`, too.
            '.' if all_dots => escape(&mut path, character),
            plain => path.push(plain),
        }
    }
    path
}

/// The key of the folder with this name.
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

/// The name of an owner's node without its sequence, which the server appends.
pub(super) fn prefix(owner: &OwnerId, mode: Mode) -> String {
    format!("{}-{}{LOCK}", identity(owner), mode_tag(mode))
}

/// How the names of an owner's nodes start, whatever their mode.
pub(super) fn identity(owner: &OwnerId) -> String {
    let digits = owner.to_string();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("_c_{}", groups.join("-"))
}

/// The owner of the node with this name, if dlock or Curator's protected mode created it.
pub(super) fn owner(name: &str) -> Option<OwnerId> {
    let uuid = name.strip_prefix("_c_")?.get(..36)?;
    OwnerId::parse(&uuid.replace('-', ""))
}

/// Parses the name or the path of a node in a queue.
pub(super) fn parse(name: String) -> Option<QueueNode> {
    let at = name.rfind(LOCK)?;
    let sequence = name[at + LOCK.len()..].parse().ok()?;
    let mode = mode_at_end(&name[..at]);
    Some(QueueNode { name, sequence, mode })
}

/// The nodes of the queue among the names in its folder.
pub(super) fn nodes(names: Vec<String>) -> Vec<QueueNode> {
    names.into_iter().filter_map(parse).collect()
}

/// The nodes ahead of this one, in the order of the queue.
pub(super) fn before(nodes: Vec<QueueNode>, own: i32) -> Vec<QueueNode> {
    // The server's counter wraps around, so only the distance between two sequences counts.
    let distance = |node: &QueueNode| own.wrapping_sub(node.sequence);
    let mut before: Vec<_> = nodes.into_iter().filter(|node| distance(node) > 0).collect();
    before.sort_by_key(|node| std::cmp::Reverse(distance(node)));
    before
}

/// What the claim finds ahead of its node. If it has other nodes, it does not wait for them.
pub(super) fn view(claim: &Claim, own: i32, nodes: Vec<QueueNode>) -> QueueView<QueueNode> {
    let mut ahead = before(nodes, own);
    let identity = identity(&claim.owner);
    ahead.retain(|node| !node.name.starts_with(&identity));
    QueueView::of(claim.mode, ahead)
}

/// All nodes, in the order of the queue.
pub(super) fn in_order(mut nodes: Vec<QueueNode>) -> Vec<QueueNode> {
    let any = nodes.first().map_or(0, |node| node.sequence);
    nodes.sort_by_key(|node| node.sequence.wrapping_sub(any));
    nodes
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::lock_table::queue::Position;

    fn queue(sequences: &[i32]) -> Vec<QueueNode> {
        nodes(sequences.iter().map(|sequence| format!("_c_x-lock-{sequence:010}")).collect())
    }

    #[test]
    fn a_plain_key_is_its_own_folder_and_others_do_not_collide() {
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
            assert_eq!(nodes(vec![name.clone()]), [QueueNode { name, sequence: 7, mode }]);
        }
        assert_eq!(super::owner("lock-0000000001"), None);
    }

    /// A create whose answer was lost can leave a second node.
    #[test]
    fn a_claim_does_not_wait_for_another_node_of_its_own() {
        let mode = Mode::Permits(NonZeroU32::new(2).unwrap());
        let claim = Claim::new("k".into(), Duration::from_secs(9)).with_mode(mode);
        let node =
            |owner: &OwnerId, sequence: u32| format!("{}{sequence:010}", prefix(owner, mode));
        let holder = node(&OwnerId::random(), 1);
        let names = vec![holder, node(&claim.owner, 2), node(&claim.owner, 3)];
        assert!(matches!(view(&claim, 3, nodes(names)).position, Position::Admitted));
    }

    #[test]
    fn names_have_their_stored_form() {
        let owner = OwnerId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let uuid = "_c_01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(prefix(&owner, Mode::Exclusive), format!("{uuid}-lock-"));
        assert_eq!(prefix(&owner, Mode::Shared), format!("{uuid}-shared-lock-"));
        let permits = Mode::Permits(NonZeroU32::new(3).unwrap());
        assert_eq!(prefix(&owner, permits), format!("{uuid}-permits-3-lock-"));
    }

    #[test]
    fn a_name_without_a_readable_mode_is_exclusive() {
        for name in ["lock-7", "shared-lock-7", "permits-3-lock-7", "x-permits-0-lock-7"] {
            assert_eq!(
                parse(name.to_owned()).map(|node| node.mode),
                Some(Mode::Exclusive),
                "{name}"
            );
        }
        let path = "/dlock/a-permits-3-/_c_x-lock-7".to_owned();
        assert_eq!(parse(path).map(|node| node.mode), Some(Mode::Exclusive));
    }

    #[test]
    fn other_names_in_a_folder_are_ignored() {
        let names = ["lock-", "x-lock-12a", "__READ__0000000001", "leases"].map(str::to_owned);
        assert_eq!(nodes(names.to_vec()), []);
    }

    fn sequences(nodes: &[QueueNode]) -> Vec<i32> {
        nodes.iter().map(|node| node.sequence).collect()
    }

    #[test]
    fn nodes_with_smaller_sequences_are_ahead() {
        let all = queue(&[12, 7, 9]);
        assert_eq!(sequences(&before(all.clone(), 12)), [7, 9]);
        assert!(sequences(&before(all.clone(), 7)).is_empty());
        assert_eq!(sequences(&in_order(all)), [7, 9, 12]);
    }

    #[test]
    fn the_order_survives_a_wrap_of_the_counter() {
        let all = queue(&[i32::MIN, i32::MAX - 1, i32::MIN + 1, i32::MAX]);
        let before = before(all.clone(), i32::MIN + 1);
        assert_eq!(sequences(&before), [i32::MAX - 1, i32::MAX, i32::MIN]);
        let all = in_order(all);
        assert_eq!(sequences(&all), [i32::MAX - 1, i32::MAX, i32::MIN, i32::MIN + 1]);
    }
}
