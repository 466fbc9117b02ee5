//! One round of the protocol, without I/O: what the nodes have answered, and what follows.
//!
//! A token must be larger than that of every earlier hold, whichever majority granted that hold. The token is
//! the largest that the granting nodes have answered. It counts only once it is stored on a majority of all nodes,
//! and only nodes whose grant was heard in this round, before the largest was determined, are counted. Then every
//! later majority has one of these nodes, and that node answers a larger token.

use std::time::Duration;

use crate::owner::OwnerId;
use crate::token::FencingToken;

/// The smallest number of nodes that is more than half of all nodes.
pub(crate) const fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It has not answered: it may have granted the lock, and may still grant it.
    Silent,
    /// It has not granted the lock and will not: the request was not sent, was given up, or the node must not count.
    Absent,
    Granted(FencingToken),
    Busy {
        owner: Option<OwnerId>,
        left: Option<Duration>,
    },
}

/// What the nodes have answered.
#[derive(Debug)]
pub(crate) struct Round {
    replies: Vec<Reply>,
    heard: usize,
}

/// What follows from the answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Won(Win),
    /// One owner is seen on a majority.
    Busy {
        expires_in: Option<Duration>,
    },
    /// No owner is seen on a majority: several callers compete, or nodes are silent.
    Split {
        expires_in: Option<Duration>,
    },
    /// Fewer nodes than a majority have granted the lock or reported it as busy.
    TooFew,
}

/// A majority has granted the lock. The hold counts once the token [is stored](Self::is_stored).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Win {
    token: FencingToken,
    majority: usize,
    stored: usize,
    behind: Vec<usize>,
}

impl Round {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { replies: vec![Reply::Silent; nodes], heard: 0 }
    }

    fn majority(&self) -> usize {
        majority(self.replies.len())
    }

    /// Notes the answer of a node, once for each node. True when the remaining nodes cannot change
    /// whether the round is won.
    pub(crate) fn hear(&mut self, node: usize, reply: Reply) -> bool {
        self.replies[node] = reply;
        self.heard += 1;
        let granted = self.granted().count();
        granted >= self.majority() || granted + self.replies.len() - self.heard < self.majority()
    }

    /// The nodes that may have granted the lock, each with whether it is known to have done so.
    pub(crate) fn may_hold(&self) -> impl Iterator<Item = (usize, bool)> {
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

    /// What follows from the answers so far. Later answers do not count.
    pub(crate) fn verdict(&self) -> Verdict {
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

    /// When this many of the busy nodes will be free, if nobody renews.
    fn expires_in(&self, wanted: usize) -> Option<Duration> {
        let mut left: Vec<_> = self.busy().map(|(_, left)| left.unwrap_or(Duration::MAX)).collect();
        left.sort_unstable();
        left.get(wanted - 1).copied().filter(|left| *left < Duration::MAX)
    }
}

impl Win {
    pub(crate) fn token(&self) -> FencingToken {
        self.token
    }

    /// The granting nodes that have a smaller token and have to store this one.
    pub(crate) fn behind(&self) -> &[usize] {
        &self.behind
    }

    /// Notes that one of the nodes [behind](Self::behind) has stored the token. True when the hold counts.
    pub(crate) fn wrote(&mut self) -> bool {
        self.stored += 1;
        self.is_stored()
    }

    /// Has a majority of all nodes stored the token?
    pub(crate) fn is_stored(&self) -> bool {
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
