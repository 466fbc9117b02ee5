//! From samples to a timeline. Pure: it reads no clock.

mod bar;
mod merge;
mod open;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dlock_runtime::backend::{LockState, Waiter};
use dlock_runtime::{LockKey, OwnerId};

pub use self::bar::{Bar, End, Kind, Process};
use self::open::Open;
use crate::top::model::{Moment, Pair, wait};

/// How many bars are kept.
pub const MOST_BARS: usize = 5_000;

/// How many times without an answer are kept apart.
const MOST_GAPS: usize = 200;

/// All that was seen of a store.
#[derive(Debug)]
pub struct Recording {
    first: Option<Moment>,
    now: Option<Moment>,
    /// The last sample of each key, if nothing was missed since then.
    last: Option<(Moment, BTreeMap<LockKey, LockState>)>,
    open: BTreeMap<LockKey, Vec<Open>>,
    closed: Vec<Bar>,
    /// While the store did not answer.
    gaps: Vec<(Duration, Duration)>,
    knows_grants: bool,
    most: usize,
    is_merged: bool,
    forgotten: u64,
}

impl Recording {
    /// `knows_grants`: is a holder's `since` the moment of its grant?
    pub fn new(knows_grants: bool) -> Self {
        Self {
            first: None,
            now: None,
            last: None,
            open: BTreeMap::new(),
            closed: Vec::new(),
            gaps: Vec::new(),
            knows_grants,
            most: MOST_BARS,
            is_merged: false,
            forgotten: 0,
        }
    }

    /// Takes a sample of all locks.
    pub fn sample(&mut self, at: Moment, locks: &[LockState]) {
        self.first.get_or_insert(at);
        if self.last.is_none()
            && let Some(before) = self.now
        {
            self.note_gap(before.elapsed, at.elapsed);
        }
        let present: BTreeMap<_, _> =
            locks.iter().map(|lock| (lock.key.clone(), lock.clone())).collect();
        let last = self.last.take();
        let before = last.as_ref().map(|(_, before)| before);
        let keys: BTreeSet<_> =
            before.into_iter().flat_map(BTreeMap::keys).chain(present.keys()).collect();
        for key in keys {
            let idle = LockState::new(key.clone(), Vec::new(), Vec::new());
            let after = present.get(key).unwrap_or(&idle);
            match &last {
                Some((from, before)) => {
                    let before = before.get(key).unwrap_or(&idle);
                    let knows_grants = self.knows_grants;
                    self.follow(&Pair { before, after, from: *from, to: at, knows_grants });
                }
                None => self.begin(after, at),
            }
        }
        self.open.retain(|_, open| !open.is_empty());
        self.last = Some((at, present));
        self.now = Some(at);
        if self.closed.len() > self.most {
            self.is_merged = true;
            self.forgotten += merge::shrink(&mut self.closed, self.most);
        }
    }

    /// A sample failed. What was open is not known to last.
    pub fn interrupt(&mut self) {
        self.last = None;
        let open = std::mem::take(&mut self.open);
        self.closed.extend(open.into_values().flatten().map(|open| open.closed(End::Unwatched)));
    }

    /// In no order.
    pub fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.closed.iter().chain(self.open.values().flatten().map(|open| &open.bar))
    }

    /// While the store did not answer.
    pub fn gaps(&self) -> &[(Duration, Duration)] {
        &self.gaps
    }

    /// The first sample and the last one.
    pub fn span(&self) -> Option<(Moment, Moment)> {
        self.first.zip(self.now)
    }

    /// Have short bars been merged?
    pub fn is_merged(&self) -> bool {
        self.is_merged
    }

    /// How many of the oldest holds and waits were left out.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The first sample of a key, or the first one after others failed.
    fn begin(&mut self, lock: &LockState, at: Moment) {
        let open = self.open.entry(lock.key.clone()).or_default();
        for holder in &lock.holders {
            let mut hold = Open::hold(&lock.key, holder, at.elapsed);
            hold.bar.began_unseen = true;
            hold.see_hold(holder, at);
            open.push(hold);
        }
        for (waiter, id) in waits(lock) {
            let mut wait = Open::wait(&lock.key, waiter, id, at.elapsed);
            wait.bar.began_unseen = true;
            open.push(wait);
        }
    }

    /// What happened to a key between two samples.
    fn follow(&mut self, pair: &Pair<'_>) {
        let key = &pair.after.key;
        let mut open = self.open.remove(key).unwrap_or_default();
        follow_holds(&mut open, pair);
        follow_waits(&mut open, pair);
        let (open, ended): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|open| open.seen == pair.to.elapsed);
        for mut ended in ended {
            let end = match ended.bar.kind {
                Kind::Wait => end_of_wait(&mut ended, pair),
                _ => ended.end_of_hold(pair.to.elapsed),
            };
            self.closed.push(ended.closed(end));
        }
        self.open.insert(key.clone(), open);
    }

    fn note_gap(&mut self, from: Duration, to: Duration) {
        let is_full = self.gaps.len() >= MOST_GAPS;
        match self.gaps.last_mut() {
            Some(last) if is_full => last.1 = to,
            _ => self.gaps.push((from, to)),
        }
    }
}

fn follow_holds(open: &mut Vec<Open>, pair: &Pair<'_>) {
    for hold in pair.holds() {
        let known = open.iter().position(|open| open.is_hold_of(hold.holder));
        let position = known.unwrap_or_else(|| {
            open.push(Open::hold(&pair.after.key, hold.holder, hold.from));
            open.len() - 1
        });
        open[position].extend(hold.to);
        // One that left ends before the sample.
        if pair.after.holders.iter().any(|holder| std::ptr::eq(holder, hold.holder)) {
            open[position].see_hold(hold.holder, pair.to);
        }
    }
}

fn follow_waits(open: &mut Vec<Open>, pair: &Pair<'_>) {
    for (waiter, id) in waits(pair.after) {
        let known = open.iter().position(|open| open.is_wait(&id));
        let position = known.unwrap_or_else(|| {
            let from = came(waiter, pair);
            open.push(Open::wait(&pair.after.key, waiter, id, from));
            open.len() - 1
        });
        open[position].see(pair.to);
    }
}

/// When this waiter, which is new, began to wait. The middle is as good as any other moment if its own clock says what
/// cannot be.
fn came(waiter: &Waiter, pair: &Pair<'_>) -> Duration {
    let since = waiter.client_info.as_ref();
    let since = since.and_then(|client| pair.to.elapsed_at(client.since()));
    since
        .filter(|since| (pair.from.elapsed..=pair.to.elapsed).contains(since))
        .unwrap_or_else(|| pair.middle())
}

/// A waiter that got the lock waited until its grant.
fn end_of_wait(wait: &mut Open, pair: &Pair<'_>) -> End {
    let is_its = |owner: Option<OwnerId>| owner.is_some() && owner == wait.owner;
    let granted = pair.holds().into_iter().find(|hold| is_its(hold.holder.owner));
    wait.extend(granted.as_ref().map_or_else(|| pair.middle(), |hold| hold.from));
    if granted.is_some() { End::Granted } else { End::Gone }
}

/// Those that wait, with what is the same in all samples of one wait.
fn waits(lock: &LockState) -> impl Iterator<Item = (&Waiter, String)> {
    lock.waiters.iter().zip(wait::of(lock).into_iter().map(|wait| wait.id))
}
