//! An entry as one text: `seen|g owner kind token end|…|w owner kind flags end|…`. A kind is `x`, `s` or `p`
//! and the number of permits; a waiter's flags are `f` (fair) or `n`, and `a` if it is absent.
//!
//! The scripts of Redis write the same.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use super::{Entry, Grant, Waiter};
use crate::backend::Sharing;
use crate::owner::OwnerId;

/// Stands for nobody: a place that is kept for the rest of a `min_hold`.
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
                ["g", owner, kind, token, ends] => {
                    entry.granted.extend(grant(owner, kind, token, ends));
                }
                ["w", owner, kind, flags, ends] => {
                    entry.queue.extend(waiter(owner, kind, flags, ends));
                }
                _ => {}
            }
        }
        entry
    }

    /// Writes it down.
    pub(crate) fn to_text(&self) -> String {
        let mut text = self.head_seen.to_string();
        for Grant { owner, sharing, token, ends } in &self.granted {
            let owner = owner.map_or_else(|| NOBODY.to_owned(), |owner| owner.to_string());
            let _ = write!(text, "|g {owner} {} {token} {ends}", sharing.code());
        }
        for Waiter { owner, sharing, fair, absent, gives_up } in &self.queue {
            let fair = if *fair { 'f' } else { 'n' };
            let absent = if *absent { "a" } else { "" };
            let _ = write!(text, "|w {owner} {} {fair}{absent} {gives_up}", sharing.code());
        }
        text
    }
}

fn grant(owner: &str, kind: &str, token: &str, ends: &str) -> Option<Grant> {
    let owner = if owner == NOBODY { None } else { Some(OwnerId::parse(owner)?) };
    let (token, ends) = (token.parse().ok()?, ends.parse().ok()?);
    Some(Grant { owner, sharing: sharing(kind)?, token, ends })
}

fn waiter(owner: &str, kind: &str, flags: &str, ends: &str) -> Option<Waiter> {
    let (owner, gives_up) = (OwnerId::parse(owner)?, ends.parse().ok()?);
    let (fair, absent) = (flags.starts_with('f'), flags.ends_with('a'));
    Some(Waiter { owner, sharing: sharing(kind)?, fair, absent, gives_up })
}

fn sharing(code: &str) -> Option<Sharing> {
    match code {
        "x" => Some(Sharing::Exclusive),
        "s" => Some(Sharing::Shared),
        _ => Some(Sharing::Permits(code.strip_prefix('p')?.parse::<NonZeroU32>().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let permits = Sharing::Permits(NonZeroU32::MIN.saturating_add(4));
        let owner = OwnerId::random();
        let entry = Entry {
            granted: vec![
                Grant { owner: Some(owner), sharing: Sharing::Shared, token: 7, ends: 1 << 52 },
                Grant { owner: None, sharing: permits, token: 8, ends: 1 },
            ],
            queue: vec![
                Waiter {
                    owner,
                    sharing: Sharing::Exclusive,
                    fair: true,
                    absent: true,
                    gives_up: 3,
                },
                Waiter { owner, sharing: permits, fair: false, absent: false, gives_up: 4 },
            ],
            head_seen: 12,
        };
        assert_eq!(Entry::from_text(&entry.to_text()), entry);
        assert_eq!(Entry::from_text(&Entry::default().to_text()), Entry::default());
    }
}
