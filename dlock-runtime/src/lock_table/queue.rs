//! Where one stands in a queue that the store itself keeps: a holder stays in it until it leaves.

use crate::backend::Mode;
use crate::lock_table::record::fits;

/// What there is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position<T> {
    /// Nothing: the key is its own, or is shared.
    Admitted,
    /// This one has to leave.
    Behind(T),
    /// Any one of those before it has to leave.
    Crowded,
}

/// Where one of this kind stands behind these, who came before it in this order.
pub(crate) fn position<T>(mode: Mode, ahead: Vec<(T, Mode)>) -> Position<T> {
    if fits(mode, ahead.iter().map(|(_, other)| *other)) {
        return Position::Admitted;
    }
    let in_the_way = |other: &Mode| match mode {
        Mode::Exclusive => true,
        Mode::Shared => *other != Mode::Shared,
        Mode::Permits(_) => !matches!(other, Mode::Permits(_)),
    };
    let last = ahead.into_iter().rev().find(|(_, other)| in_the_way(other));
    last.map_or(Position::Crowded, |(one, _)| Position::Behind(one))
}

/// Who holds the key, of all who stand in this order: the first, and those of its kind right behind it if
/// they share. Of those with permits some may still wait; who is taken for a holder takes another place.
pub(crate) fn holders<T>(all: Vec<(T, Mode)>) -> Vec<T> {
    let Some(kind) = all.first().map(|(_, mode)| *mode) else { return vec![] };
    let alike = all.into_iter().take_while(|(_, mode)| *mode == kind).map(|(one, _)| one);
    alike.take(if kind == Mode::Exclusive { 1 } else { usize::MAX }).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;
    const P: Mode = Mode::Permits(NonZeroU32::new(2).unwrap());

    fn stands(mode: Mode, ahead: &[Mode]) -> Position<usize> {
        position(mode, ahead.iter().copied().enumerate().collect())
    }

    #[test]
    fn each_waits_for_the_last_one_in_its_way() {
        assert_eq!(stands(X, &[]), Position::Admitted);
        assert_eq!(stands(X, &[S, S]), Position::Behind(1));
        assert_eq!(stands(S, &[S, S]), Position::Admitted);
        assert_eq!(stands(S, &[X, S, X, S]), Position::Behind(2));
        assert_eq!(stands(P, &[P]), Position::Admitted);
        assert_eq!(stands(P, &[P, P]), Position::Crowded);
        assert_eq!(stands(P, &[P, X, P]), Position::Behind(1));
    }

    #[test]
    fn holders_are_the_first_and_those_who_share_with_it() {
        let of = |all: &[Mode]| holders(all.iter().copied().enumerate().collect()).len();
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[X, X]), 1);
        assert_eq!(of(&[S, S, X, S]), 2);
        assert_eq!(of(&[P, P, S]), 2);
    }
}
