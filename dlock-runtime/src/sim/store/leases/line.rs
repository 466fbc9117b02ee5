//! The line of those that wait for a key with plain claims, as Redis and PostgreSQL keep it: a release reserves the key
//! for the first of them, and notifies nobody else.

use std::time::Duration;

use crate::backend::Claim;
use crate::lock_table::record::{Micros, micros};
use crate::owner::OwnerId;
use crate::sim::instance::ProcessId;

/// How long a key stays reserved.
const RESERVED: Duration = Duration::from_millis(400);

/// How often a waiter asks.
pub(super) const SIGN: Duration = Duration::from_millis(500);

/// A waiter that is this late is gone.
const LATE: Duration = Duration::from_millis(500);

/// For how long a waiter that messages do not reach is skipped.
const LONGEST_SKIP: Duration = Duration::from_secs(1);

/// More than the tokens of a block. A reservation draws them, because it does not know how many its claim will ask for.
const TOKENS: u16 = 1_024;

/// The waiters of a key, in the order of their arrival.
#[derive(Default)]
pub(super) struct Line(Vec<InLine>);

struct InLine {
    claim: Claim,
    process: ProcessId,
    asked: Micros,
    ends: Micros,
    /// When a release first failed to notify it.
    skipped: Option<Micros>,
}

/// A waiter whose turn it is.
pub(super) struct Turn {
    /// The claim for which the key is reserved.
    pub(super) claim: Claim,
    pub(super) process: ProcessId,
}

impl Line {
    /// Joins the line, or keeps the position.
    pub(super) fn join(&mut self, claim: &Claim, process: ProcessId, now: Micros) {
        let ends = now + micros(claim.wait_left);
        if let Some(one) = self.0.iter_mut().find(|one| one.claim.owner == claim.owner) {
            (one.asked, one.ends) = (now, ends);
        } else {
            let claim = claim.clone();
            self.0.push(InLine { claim, process, asked: now, ends, skipped: None });
        }
    }

    pub(super) fn leave(&mut self, owner: OwnerId) {
        self.0.retain(|one| one.claim.owner != owner);
    }

    /// The first waiter that is there, and is reached or was skipped for long enough. It leaves the line.
    pub(super) fn next(
        &mut self,
        now: Micros,
        reaches: impl Fn(ProcessId) -> bool,
    ) -> Option<Turn> {
        self.0.retain(|one| one.is_there(now));
        let at = self.0.iter_mut().position(|one| {
            let since = *one.skipped.get_or_insert(now);
            let was_skipped = one.asked >= since + micros(LONGEST_SKIP) / 2;
            reaches(one.process) || was_skipped && now >= since + micros(LONGEST_SKIP)
        })?;
        let InLine { mut claim, process, .. } = self.0.remove(at);
        claim.ttl = claim.ttl.min(RESERVED);
        claim.token_block = TOKENS;
        Some(Turn { claim, process })
    }

    pub(super) fn owners(&self, now: Micros) -> impl Iterator<Item = OwnerId> {
        self.0.iter().filter(move |one| one.is_there(now)).map(|one| one.claim.owner)
    }
}

impl InLine {
    fn is_there(&self, now: Micros) -> bool {
        self.asked + micros(SIGN + LATE) > now && self.ends > now
    }
}
