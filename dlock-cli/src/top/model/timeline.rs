//! Who held a key and who waited for it between two samples.
//!
//! A wait that both samples show lasted all the time between them. One that only one of them shows counts for half of it,
//! because it may have begun or ended at any moment. Over many samples this is right on average, also for waits that are
//! much shorter than the time between two samples, most of which no sample shows.

use std::time::Duration;

use dlock_runtime::backend::{Holder, LockState};

use super::Moment;
use super::wait::{self, Wait};

/// Two samples of a key.
pub struct Pair<'a> {
    pub before: &'a LockState,
    pub after: &'a LockState,
    pub from: Moment,
    pub to: Moment,
    /// Is a holder's `since` the moment of its grant?
    pub knows_grants: bool,
}

/// A while in which the same clients held and waited.
#[derive(Debug)]
pub struct Piece<'a> {
    pub length: Duration,
    /// None if nobody was seen to hold the key.
    pub holders: Vec<&'a Holder>,
    pub waits: Vec<Wait<'a>>,
}

/// A holder, and the part of the time in which it held.
pub struct Hold<'a> {
    pub holder: &'a Holder,
    pub from: Duration,
    pub to: Duration,
}

impl<'a> Pair<'a> {
    /// The pieces in which somebody waited.
    pub fn pieces(&self) -> Vec<Piece<'a>> {
        let (from, to) = (self.from.elapsed, self.to.elapsed);
        if from >= to {
            return Vec::new();
        }
        let middle = self.middle();
        let was_there = wait::of(self.before);
        let is_there = wait::of(self.after);
        let is_in =
            |waits: &[Wait<'_>], wait: &Wait<'_>| waits.iter().any(|other| other.id == wait.id);
        let (stayed, came): (Vec<_>, Vec<_>) =
            is_there.into_iter().partition(|wait| is_in(&was_there, wait));
        let left = was_there.into_iter().filter(|wait| !is_in(&stayed, wait)).collect();
        // It may hold the key itself by now, so it is not charged to later holders.
        let left = Piece {
            length: middle.saturating_sub(from),
            holders: self.before.holders.iter().collect(),
            waits: left,
        };
        let holds = self.holds();
        let mut pieces = vec![left];
        pieces.extend(cut(&holds, from, to, &stayed));
        pieces.extend(cut(&holds, middle, to, &came));
        pieces.retain(|piece| !piece.waits.is_empty());
        pieces
    }

    pub fn middle(&self) -> Duration {
        let length = self.to.elapsed.saturating_sub(self.from.elapsed);
        self.from.elapsed + length / 2
    }

    /// A holder that left is taken to have held until the first of the new ones began.
    pub fn holds(&self) -> Vec<Hold<'a>> {
        let (before, after) = (&self.before.holders, &self.after.holders);
        let (from, to) = (self.from.elapsed, self.to.elapsed);
        let is_new = |holder: &&Holder| !before.iter().any(|other| is_same(holder, other));
        let handed_over = after.iter().filter(is_new).map(|holder| self.granted(holder)).min();
        let handed_over = handed_over.unwrap_or_else(|| self.middle());
        let left = before.iter().filter(|holder| !after.iter().any(|other| is_same(holder, other)));
        let left = left.map(|holder| Hold { holder, from, to: handed_over });
        let present = after.iter().map(|holder| {
            let from = if is_new(&holder) { self.granted(holder) } else { from };
            Hold { holder, from, to }
        });
        left.chain(present).collect()
    }

    /// When this holder, which is new, got the key. The middle is as good as any other moment if its own clock does not
    /// say, or says what cannot be.
    fn granted(&self, holder: &Holder) -> Duration {
        let since = holder.client_info.as_ref().filter(|_| self.knows_grants);
        let since = since.and_then(|client| self.to.elapsed_at(client.since()));
        since
            .filter(|since| (self.from.elapsed..=self.to.elapsed).contains(since))
            .unwrap_or_else(|| self.middle())
    }
}

/// Is it one hold? A lease that passes within a process may show another token.
pub fn is_same(one: &Holder, other: &Holder) -> bool {
    one.token == other.token || one.owner.is_some() && one.owner == other.owner
}

/// Cuts the time from `from` to `to` where holders change.
fn cut<'a>(holds: &[Hold<'a>], from: Duration, to: Duration, waits: &[Wait<'a>]) -> Vec<Piece<'a>> {
    let mut cuts = vec![from, to];
    let changes = holds.iter().flat_map(|hold| [hold.from, hold.to]);
    cuts.extend(changes.filter(|at| (from..to).contains(at)));
    cuts.sort_unstable();
    cuts.dedup();
    let pieces = cuts.windows(2).map(|ends| {
        let holders = holds.iter().filter(|hold| hold.from <= ends[0] && ends[1] <= hold.to);
        Piece {
            length: ends[1].saturating_sub(ends[0]),
            holders: holders.map(|hold| hold.holder).collect(),
            waits: waits.to_vec(),
        }
    });
    pieces.collect()
}
