//! One try of the protocol, without input or output: what the nodes have said, and what follows.
//!
//! A token must not be smaller than that of an earlier hold, whichever majority granted that one. It is
//! the largest that the granting nodes have answered, and it counts only once a majority of *these* have
//! stored it: then every later majority has one of them, and that node answers more.

use std::time::Duration;

use crate::owner::OwnerId;
use crate::token::FencingToken;

/// How many nodes are more than half of them.
pub(super) const fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It has not answered: it may have granted, and may grant later.
    Silent,
    /// It has not granted and will not: it was not asked, or must not count.
    Absent,
    Granted(FencingToken),
    Busy {
        owner: Option<OwnerId>,
        left: Option<Duration>,
    },
}

/// What the nodes have said.
#[derive(Debug)]
pub(super) struct Round {
    replies: Vec<Reply>,
    heard: usize,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Won(Win),
    /// One owner is seen on a majority.
    Busy {
        expires_in: Option<Duration>,
    },
    /// Nobody is seen on a majority: several try at once, or nodes are silent.
    Split {
        expires_in: Option<Duration>,
    },
    /// No majority has answered.
    TooFew,
}

/// A majority has granted. It counts once the token [is stored](Self::is_stored).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Win {
    token: FencingToken,
    majority: usize,
    stored: usize,
    behind: Vec<usize>,
}

impl Round {
    pub(super) fn new(nodes: usize) -> Self {
        Self { replies: vec![Reply::Silent; nodes], heard: 0 }
    }

    fn majority(&self) -> usize {
        majority(self.replies.len())
    }

    /// Takes in what a node says, once for each; true when those who have not spoken cannot change
    /// whether it is won.
    pub(super) fn hear(&mut self, node: usize, reply: Reply) -> bool {
        self.replies[node] = reply;
        self.heard += 1;
        let granted = self.granted().count();
        granted >= self.majority() || granted + self.replies.len() - self.heard < self.majority()
    }

    /// Those who may have granted, each with whether it surely has.
    pub(super) fn may_hold(&self) -> impl Iterator<Item = (usize, bool)> {
        self.replies.iter().enumerate().filter_map(|(node, reply)| match reply {
            Reply::Granted(_) => Some((node, true)),
            Reply::Silent => Some((node, false)),
            Reply::Absent | Reply::Busy { .. } => None,
        })
    }

    fn granted(&self) -> impl Iterator<Item = (usize, FencingToken)> {
        self.replies.iter().enumerate().filter_map(|(node, reply)| match reply {
            Reply::Granted(token) => Some((node, *token)),
            _ => None,
        })
    }

    fn busy(&self) -> impl Iterator<Item = (Option<OwnerId>, Option<Duration>)> {
        self.replies.iter().filter_map(|reply| match reply {
            Reply::Busy { owner, left } => Some((*owner, *left)),
            _ => None,
        })
    }

    /// What follows when nothing more is awaited. What is said later does not count.
    pub(super) fn verdict(&self) -> Verdict {
        let granted = self.granted().count();
        if granted >= self.majority() {
            return Verdict::Won(self.win());
        }
        if granted + self.busy().count() < self.majority() {
            return Verdict::TooFew;
        }
        let expires_in = self.expires_in(self.majority() - granted);
        let shown_by = |owner| self.busy().filter(|(other, _)| *other == owner).count();
        if self.busy().any(|(owner, _)| shown_by(owner) >= self.majority()) {
            Verdict::Busy { expires_in }
        } else {
            Verdict::Split { expires_in }
        }
    }

    fn win(&self) -> Win {
        let token = self.granted().map(|(_, token)| token).max();
        let token = token.expect("a majority is never empty");
        let (stored, behind): (Vec<_>, Vec<_>) =
            self.granted().partition(|(_, answered)| *answered == token);
        Win {
            token,
            majority: self.majority(),
            stored: stored.len(),
            behind: behind.into_iter().map(|(node, _)| node).collect(),
        }
    }

    /// When so many of the busy nodes are free, if nobody renews.
    fn expires_in(&self, wanted: usize) -> Option<Duration> {
        let mut left: Vec<_> = self.busy().map(|(_, left)| left.unwrap_or(Duration::MAX)).collect();
        left.sort_unstable();
        left.get(wanted - 1).copied().filter(|left| *left < Duration::MAX)
    }
}

impl Win {
    pub(super) fn token(&self) -> FencingToken {
        self.token
    }

    /// Those of the granting nodes who have a smaller token, and are to store this one.
    pub(super) fn behind(&self) -> &[usize] {
        &self.behind
    }

    /// One of those [behind](Self::behind) has stored the token; true when it counts.
    pub(super) fn wrote(&mut self) -> bool {
        self.stored += 1;
        self.is_stored()
    }

    /// Has a majority stored the token?
    pub(super) fn is_stored(&self) -> bool {
        self.stored >= self.majority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn granted(token: u64) -> Reply {
        Reply::Granted(FencingToken::new(token))
    }

    fn busy(owner: u8, left: u32) -> Reply {
        let owner = Some(OwnerId::from_bytes([owner; 16]));
        Reply::Busy { owner, left: Some(MILLISECOND * left) }
    }

    fn verdict(replies: &[Reply]) -> Verdict {
        let mut round = Round::new(replies.len());
        for (node, reply) in replies.iter().enumerate() {
            round.hear(node, reply.clone());
        }
        round.verdict()
    }

    fn win(replies: &[Reply]) -> Win {
        match verdict(replies) {
            Verdict::Won(win) => win,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_majority_that_agrees_counts_at_once() {
        let win = win(&[granted(7), Reply::Silent, granted(7), Reply::Absent, granted(7)]);
        assert!(win.is_stored());
        assert_eq!(win.token().get(), 7);
    }

    #[test]
    fn the_largest_token_is_written_back_to_those_who_granted_less() {
        let mut win = win(&[granted(7), granted(9), granted(8), granted(9), busy(1, 5)]);
        assert_eq!(win.token().get(), 9);
        assert_eq!(win.behind(), [0, 2]);
        assert!(!win.is_stored());
        assert!(win.wrote());
    }

    #[test]
    fn it_is_decided_as_soon_as_nobody_can_change_it() {
        let mut round = Round::new(5);
        assert!(!round.hear(0, granted(1)));
        assert!(!round.hear(1, granted(1)));
        assert!(round.hear(4, granted(1)));
        let mut round = Round::new(5);
        assert!(!round.hear(0, busy(1, 1)));
        assert!(!round.hear(1, Reply::Absent));
        assert!(round.hear(2, Reply::Silent));
    }

    #[test]
    fn a_lock_that_one_owner_has_is_busy_until_enough_nodes_are_free() {
        let replies = [busy(1, 30), busy(1, 10), busy(1, 20), granted(1), Reply::Silent];
        assert_eq!(verdict(&replies), Verdict::Busy { expires_in: Some(MILLISECOND * 20) });
    }

    #[test]
    fn owners_without_a_majority_are_a_split() {
        let replies = [busy(1, 30), busy(1, 10), busy(2, 20), granted(1), granted(1)];
        assert_eq!(verdict(&replies), Verdict::Split { expires_in: Some(MILLISECOND * 10) });
    }

    #[test]
    fn silence_is_no_answer() {
        let replies = [granted(1), busy(1, 1), Reply::Silent, Reply::Silent, Reply::Absent];
        assert_eq!(verdict(&replies), Verdict::TooFew);
    }
}
