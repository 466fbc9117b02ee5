//! A queue whose nodes the server puts in order: who holds the key, who waits, and for whom.

use std::num::NonZeroU32;

use crate::backend::Mode;
use crate::lock_table::queue::{Position, holders, position};

/// A holder or a waiter in a queue.
pub(crate) trait InQueue {
    fn mode(&self) -> Mode;
}

/// What a claim finds ahead of its node.
pub(crate) struct QueueView<T> {
    pub(crate) position: Position<T>,
    /// The number of permits of a node ahead, if it differs from the claim's own.
    pub(crate) other_permits: Option<NonZeroU32>,
}

impl<T: InQueue> QueueView<T> {
    /// The view of a claim with these nodes ahead of it, in the order of the queue.
    pub(crate) fn of(mode: Mode, ahead: Vec<T>) -> Self {
        let other_permits = mode.other_permits(ahead.iter().map(T::mode));
        let ahead = ahead.into_iter().map(|node| {
            let mode = node.mode();
            (node, mode)
        });
        Self { position: position(mode, ahead.collect()), other_permits }
    }
}

/// Splits a queue, in its order, into the holders and the waiters.
pub(crate) fn split_holders<T: InQueue>(mut queue: Vec<T>) -> (Vec<T>, Vec<T>) {
    // The holders are the first nodes of the queue.
    let holding = holders(queue.iter().map(|node| ((), node.mode())).collect()).len();
    let waiters = queue.split_off(holding);
    (queue, waiters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;
    const P: Mode = Mode::Permits(NonZeroU32::new(2).unwrap());
    const Q: Mode = Mode::Permits(NonZeroU32::new(3).unwrap());

    #[derive(Debug, PartialEq, Eq)]
    struct Node(u8, Mode);

    impl InQueue for Node {
        fn mode(&self) -> Mode {
            self.1
        }
    }

    fn queue(modes: &[Mode]) -> Vec<Node> {
        (0..).zip(modes).map(|(number, mode)| Node(number, *mode)).collect()
    }

    #[test]
    fn a_view_names_the_blocking_node_and_other_permits() {
        let view = QueueView::of(S, queue(&[S, X, S]));
        assert_eq!((view.position, view.other_permits), (Position::Behind(Node(1, X)), None));
        let view = QueueView::of(P, queue(&[Q]));
        assert_eq!((view.position, view.other_permits), (Position::Admitted, NonZeroU32::new(3)));
    }

    #[test]
    fn every_node_holds_or_waits() {
        for (modes, holding) in
            [(&[][..], 0), (&[X, X], 1), (&[S, S, X, S], 2), (&[P, P, Q], 2), (&[S], 1)]
        {
            let (holders, waiters) = split_holders(queue(modes));
            assert_eq!(holders.len(), holding, "{modes:?}");
            let all: Vec<_> = holders.into_iter().chain(waiters).collect();
            assert_eq!(all, queue(modes));
        }
    }
}
