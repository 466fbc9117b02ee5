//! Positions in a queue that the store itself keeps. A holder stays in the queue until it leaves.

use crate::backend::Mode;
use crate::lock_table::record::fits;

/// What an entry of the queue has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position<T> {
    /// Nothing: it holds the key, alone or shared.
    Admitted,
    /// This entry has to leave.
    Behind(T),
    /// Any one of the entries ahead has to leave.
    Crowded,
}

/// The position of an entry with this mode behind the entries ahead of it, in queue order.
pub(crate) fn position<T>(mode: Mode, ahead: Vec<(T, Mode)>) -> Position<T> {
    if fits(mode, ahead.iter().map(|(_, other)| *other)) {
        return Position::Admitted;
    }
    let conflicts = |other: &Mode| match mode {
        Mode::Exclusive => true,
        Mode::Shared => *other != Mode::Shared,
        Mode::Permits(_) => !matches!(other, Mode::Permits(_)),
    };
    let last = ahead.into_iter().rev().find(|(_, other)| conflicts(other));
    last.map_or(Position::Crowded, |(one, _)| Position::Behind(one))
}

/// The holders among all entries, in queue order: the first entry, and those right behind it with the same mode
/// unless it is exclusive. Of those with permits some may still be waiting.
pub(crate) fn holders<T>(all: Vec<(T, Mode)>) -> Vec<T> {
    let Some(kind) = all.first().map(|(_, mode)| *mode) else { return vec![] };
    let same_mode = all.into_iter().take_while(|(_, mode)| *mode == kind).map(|(one, _)| one);
    same_mode.take(if kind == Mode::Exclusive { 1 } else { usize::MAX }).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;
    const P: Mode = Mode::Permits(NonZeroU32::new(2).unwrap());

    fn position_behind(mode: Mode, ahead: &[Mode]) -> Position<usize> {
        position(mode, ahead.iter().copied().enumerate().collect())
    }

    #[test]
    fn a_waiter_waits_for_the_last_conflicting_entry() {
        assert_eq!(position_behind(X, &[]), Position::Admitted);
        assert_eq!(position_behind(X, &[S, S]), Position::Behind(1));
        assert_eq!(position_behind(S, &[S, S]), Position::Admitted);
        assert_eq!(position_behind(S, &[X, S, X, S]), Position::Behind(2));
        assert_eq!(position_behind(P, &[P]), Position::Admitted);
        assert_eq!(position_behind(P, &[P, P]), Position::Crowded);
        assert_eq!(position_behind(P, &[P, X, P]), Position::Behind(1));
    }

    #[test]
    fn holders_are_the_first_entry_and_those_that_share_with_it() {
        let of = |all: &[Mode]| holders(all.iter().copied().enumerate().collect()).len();
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[X, X]), 1);
        assert_eq!(of(&[S, S, X, S]), 2);
        assert_eq!(of(&[P, P, S]), 2);
    }
}
