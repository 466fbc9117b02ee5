//! Where one stands in a queue that the store itself keeps: a holder stays in it until it leaves.

use crate::backend::Sharing;
use crate::lock_table::record::fits;

/// What there is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<T> {
    /// Nothing: the key is its own, or is shared.
    Admitted,
    /// This one has to leave.
    Behind(T),
    /// Any one of those before it has to leave.
    Crowded,
}

/// Where one of this kind stands behind these, who came before it in this order.
pub(crate) fn standing<T>(sharing: Sharing, ahead: Vec<(T, Sharing)>) -> Standing<T> {
    if fits(sharing, ahead.iter().map(|(_, other)| *other)) {
        return Standing::Admitted;
    }
    let in_the_way = |other: &Sharing| match sharing {
        Sharing::Exclusive => true,
        Sharing::Shared => *other != Sharing::Shared,
        Sharing::Permits(_) => !matches!(other, Sharing::Permits(_)),
    };
    let last = ahead.into_iter().rev().find(|(_, other)| in_the_way(other));
    last.map_or(Standing::Crowded, |(one, _)| Standing::Behind(one))
}

/// Who holds the key, of all who stand in this order: the first, and those of its kind right behind it if
/// they share. Of those with permits some may still wait; who is taken for a holder takes another place.
pub(crate) fn holders<T>(all: Vec<(T, Sharing)>) -> Vec<T> {
    let Some(kind) = all.first().map(|(_, sharing)| *sharing) else { return vec![] };
    let alike = all.into_iter().take_while(|(_, sharing)| *sharing == kind).map(|(one, _)| one);
    alike.take(if kind == Sharing::Exclusive { 1 } else { usize::MAX }).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const X: Sharing = Sharing::Exclusive;
    const S: Sharing = Sharing::Shared;
    const P: Sharing = Sharing::Permits(NonZeroU32::new(2).unwrap());

    fn stands(sharing: Sharing, ahead: &[Sharing]) -> Standing<usize> {
        standing(sharing, ahead.iter().copied().enumerate().collect())
    }

    #[test]
    fn each_waits_for_the_last_one_in_its_way() {
        assert_eq!(stands(X, &[]), Standing::Admitted);
        assert_eq!(stands(X, &[S, S]), Standing::Behind(1));
        assert_eq!(stands(S, &[S, S]), Standing::Admitted);
        assert_eq!(stands(S, &[X, S, X, S]), Standing::Behind(2));
        assert_eq!(stands(P, &[P]), Standing::Admitted);
        assert_eq!(stands(P, &[P, P]), Standing::Crowded);
        assert_eq!(stands(P, &[P, X, P]), Standing::Behind(1));
    }

    #[test]
    fn holders_are_the_first_and_those_who_share_with_it() {
        let of = |all: &[Sharing]| holders(all.iter().copied().enumerate().collect()).len();
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[X, X]), 1);
        assert_eq!(of(&[S, S, X, S]), 2);
        assert_eq!(of(&[P, P, S]), 2);
    }
}
