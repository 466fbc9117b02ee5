//! An entry as one text: `seen|g owner kind token end claimant|…|w owner kind flags end claimant|…`. The owner of
//! a hold that was revoked has a `~` before it; a kind is `x`, `s` or `p` and the number of permits; a waiter's
//! flags are `f` (fair) or `n`, and `a` if it is absent.
//!
//! The scripts of Redis write the same.

use std::fmt::Write as _;

use super::words::{read, sharing, written};
use super::{Entry, Grant, Waiter};
use crate::claimant::Claimant;
use crate::owner::OwnerId;

/// Stands for nobody: a place that is kept for the rest of a `min_hold`, or a claimant that is not known.
const NOBODY: &str = "-";

impl Entry {
    /// Reads what [`to_text`](Self::to_text) has written; what cannot be read is left out.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut records = text.split('|');
        let head_seen = records.next().and_then(|seen| seen.parse().ok()).unwrap_or(0);
        let mut entry = Self { head_seen, ..Self::default() };
        for record in records {
            let words: Vec<&str> = record.split(' ').collect();
            match words[..] {
                ["g", owner, kind, token, ends, claimant] => {
                    entry.granted.extend(grant([owner, kind, token, ends], claimant));
                }
                ["w", owner, kind, flags, ends, claimant] => {
                    entry.queue.extend(waiter([owner, kind, flags, ends], claimant));
                }
                _ => {}
            }
        }
        entry
    }

    /// Writes it down.
    pub(crate) fn to_text(&self) -> String {
        let mut text = self.head_seen.to_string();
        for Grant { owner, sharing, token, ends, revoked, claimant } in &self.granted {
            let owner = owner.map_or_else(|| NOBODY.to_owned(), |owner| written(owner, *revoked));
            let claimant = word(claimant.as_ref());
            let _ = write!(text, "|g {owner} {} {token} {ends} {claimant}", sharing.code());
        }
        for Waiter { owner, sharing, fair, absent, gives_up, claimant } in &self.queue {
            let claimant = word(claimant.as_ref());
            let fair = if *fair { 'f' } else { 'n' };
            let absent = if *absent { "a" } else { "" };
            let kind = sharing.code();
            let _ = write!(text, "|w {owner} {kind} {fair}{absent} {gives_up} {claimant}");
        }
        text
    }
}

fn word(claimant: Option<&Claimant>) -> String {
    claimant.map_or_else(|| NOBODY.to_owned(), Claimant::to_text)
}

fn grant([owner, kind, token, ends]: [&str; 4], claimant: &str) -> Option<Grant> {
    let (owner, revoked) = match owner {
        NOBODY => (None, false),
        owner => read(owner).map(|(owner, revoked)| (Some(owner), revoked))?,
    };
    let (token, ends) = (token.parse().ok()?, ends.parse().ok()?);
    let claimant = Claimant::parse(claimant);
    Some(Grant { owner, sharing: sharing(kind)?, token, ends, revoked, claimant })
}

fn waiter([owner, kind, flags, ends]: [&str; 4], claimant: &str) -> Option<Waiter> {
    let (owner, gives_up) = (OwnerId::parse(owner)?, ends.parse().ok()?);
    let (fair, absent) = (flags.starts_with('f'), flags.ends_with('a'));
    let claimant = Claimant::parse(claimant);
    Some(Waiter { owner, sharing: sharing(kind)?, fair, absent, gives_up, claimant })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::backend::Sharing;

    #[test]
    fn what_is_written_is_read_back() {
        let permits = Sharing::Permits(NonZeroU32::MIN.saturating_add(4));
        let owner = OwnerId::random();
        let known = Claimant::parse("host,7,1000,shop::purchase");
        assert!(known.is_some());
        let grant = |owner, sharing, revoked, claimant: &Option<Claimant>| Grant {
            owner,
            sharing,
            token: 7,
            ends: 1 << 52,
            revoked,
            claimant: claimant.clone(),
        };
        let waiter = |sharing, fair, absent, claimant: &Option<Claimant>| Waiter {
            owner,
            sharing,
            fair,
            absent,
            gives_up: 3,
            claimant: claimant.clone(),
        };
        let entry = Entry {
            granted: vec![
                grant(Some(owner), Sharing::Shared, false, &known),
                grant(Some(owner), Sharing::Shared, true, &None),
                grant(None, permits, false, &known),
            ],
            queue: vec![
                waiter(Sharing::Exclusive, true, true, &known),
                waiter(permits, false, false, &None),
            ],
            head_seen: 12,
        };
        assert_eq!(Entry::from_text(&entry.to_text()), entry);
        assert_eq!(Entry::from_text(&Entry::default().to_text()), Entry::default());
    }
}
