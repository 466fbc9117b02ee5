//! A node in memory: what the scripts of Redlock do, without a server. Simulations use it, and a test compares it with the
//! scripts on a real server.

use std::collections::HashMap;

/// An hour, in microseconds.
const HOUR: u64 = 3_600_000_000;

/// How much longer than the ttl a tombstone is kept.
const TOMBSTONE: u64 = 60_000_000;

/// What a node answers to an acquire. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Granted(u64),
    Busy { owner: u64, left: u64 },
    GivenUp,
    Quarantined(u64),
    Unmarked,
}

/// How a node answers a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    NotHeld,
    Counts,
    Uncounted,
}

/// What a node shows of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) owner: u64,
    pub(crate) token: u64,
    pub(crate) left: u64,
}

/// Who asks: an owner in one of its rounds, and the run of the server that it has greeted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) owner: u64,
    pub(crate) round: u64,
    pub(crate) run: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    owner: u64,
    token: u64,
    round: u64,
    until: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    run: u64,
    from: u64,
    longest: u64,
}

/// What a node stores.
#[derive(Clone, Debug, Default)]
struct Stored {
    lock: Option<Lock>,
    /// The last token, and when it expires.
    last: Option<(u64, u64)>,
    /// Tombstones by owner: the round that was given up, and when the tombstone expires.
    gone: HashMap<u64, (u64, u64)>,
    mark: Option<Mark>,
}

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its clock, in microseconds.
    pub(crate) now: u64,
    /// The run of the server.
    pub(crate) run: u64,
    stored: Stored,
}

impl Node {
    pub(crate) fn new(now: u64, run: u64) -> Self {
        Self { now, run, stored: Stored::default() }
    }

    fn lock(&self) -> Option<Lock> {
        self.stored.lock.filter(|lock| lock.until > self.now)
    }

    /// The owner of the lock.
    pub(crate) fn holder(&self) -> Option<u64> {
        self.shown().map(|shown| shown.owner)
    }

    /// `inspect.lua`.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let Lock { owner, token, until, .. } = self.lock()?;
        Some(Shown { owner, token, left: until - self.now })
    }

    /// Whether the node counts towards a majority for a client that has greeted this run.
    pub(crate) fn counts(&self, run: u64) -> bool {
        self.may_count(run).is_ok()
    }

    fn last(&self) -> u64 {
        self.stored.last.filter(|(_, until)| *until > self.now).map_or(0, |(token, _)| token)
    }

    fn is_gone(&self, asker: Asker) -> bool {
        let gone = self.stored.gone.get(&asker.owner);
        gone.is_some_and(|(round, until)| *until > self.now && *round >= asker.round)
    }

    fn remember_token(&mut self, token: u64) {
        self.stored.last = Some((token, self.now.max(token) + HOUR));
    }

    fn may_count(&self, run: u64) -> Result<(), Answer> {
        match self.stored.mark {
            Some(mark) if mark.run == run && mark.from <= self.now => Ok(()),
            Some(mark) if mark.run == run => Err(Answer::Quarantined(mark.from - self.now)),
            _ => Err(Answer::Unmarked),
        }
    }

    /// `greet.lua`, as `enter` or, with `found`, as the declaration that all nodes are new.
    pub(crate) fn greet(&mut self, quarantine: u64, found: bool) {
        let mark = match self.stored.mark {
            Some(mark) if mark.run == self.run => {
                let more = quarantine.saturating_sub(mark.longest);
                let from = if mark.from > self.now { mark.from + more } else { mark.from };
                Mark { from, longest: mark.longest.max(quarantine), ..mark }
            }
            other => {
                let longest = other.map_or(0, |mark| mark.longest).max(quarantine);
                let is_new = found && other.is_none();
                let from = if is_new { self.now } else { self.now + longest };
                Mark { run: self.run, from, longest }
            }
        };
        self.stored.mark = Some(mark);
    }

    /// `acquire.lua`.
    pub(crate) fn acquire(
        &mut self,
        asker: Asker,
        ttl: u64,
        proposed: u64,
        tolerance: u64,
    ) -> Answer {
        if let Err(answer) = self.may_count(asker.run) {
            return answer;
        }
        let until = self.now + ttl;
        if let Some(lock) = self.lock() {
            if lock.owner != asker.owner {
                return Answer::Busy { owner: lock.owner, left: lock.until - self.now };
            }
            let round = lock.round.max(asker.round);
            self.stored.lock = Some(Lock { round, until, ..lock });
            return Answer::Granted(lock.token);
        }
        if self.is_gone(asker) {
            return Answer::GivenUp;
        }
        let is_near = proposed.abs_diff(self.now) <= tolerance;
        let token = (self.last() + 1).max(if is_near { proposed } else { self.now });
        self.remember_token(token);
        let Asker { owner, round, .. } = asker;
        self.stored.lock = Some(Lock { owner, token, round, until });
        Answer::Granted(token)
    }

    /// `raise.lua`.
    pub(crate) fn raise(&mut self, asker: Asker, token: u64) -> bool {
        let is_same = |lock: &Lock| (lock.owner, lock.round) == (asker.owner, asker.round);
        let Some(lock) = self.lock().filter(is_same) else { return false };
        if self.may_count(asker.run).is_err() {
            return false;
        }
        let token = lock.token.max(token);
        self.remember_token(self.last().max(token));
        self.stored.lock = Some(Lock { token, ..lock });
        true
    }

    /// `renew.lua`.
    pub(crate) fn renew(&mut self, asker: Asker, ttl: u64, token: u64) -> Renewed {
        let until = self.now + ttl;
        match self.lock() {
            Some(lock) if lock.owner == asker.owner => {
                self.stored.lock = Some(Lock { until, ..lock });
            }
            Some(_) => return Renewed::NotHeld,
            None if self.is_gone(asker) => return Renewed::NotHeld,
            None => {
                self.remember_token(self.last().max(token));
                let Asker { owner, round, .. } = asker;
                self.stored.gone.insert(owner, (round - 1, until + TOMBSTONE));
                self.stored.lock = Some(Lock { owner, token, round, until });
            }
        }
        if self.may_count(asker.run).is_ok() { Renewed::Counts } else { Renewed::Uncounted }
    }

    /// `release.lua`, without `min_hold`. `tombstone`: how long it is kept, and whether it is left even if the owner
    /// is found.
    pub(crate) fn release(&mut self, asker: Asker, tombstone: Option<(u64, bool)>) -> bool {
        let is_ours = |lock: &Lock| lock.owner == asker.owner && lock.round <= asker.round;
        let found = self.lock().is_some_and(|lock| is_ours(&lock));
        if let Some((stays, always)) = tombstone
            && (always || !found)
        {
            let until = self.now + stays;
            let gone = self.stored.gone.entry(asker.owner).or_insert((0, 0));
            if gone.1 <= self.now || gone.0 <= asker.round {
                *gone = (asker.round, until);
            }
        }
        if found {
            self.stored.lock = None;
        }
        found
    }

    /// Ends the lease now.
    #[cfg_attr(
        not(all(test, feature = "redis")),
        allow(dead_code, reason = "a simulation of its own uses it")
    )]
    pub(crate) fn expire(&mut self) {
        self.stored.lock = None;
    }

    /// `FLUSHALL`.
    pub(crate) fn empty(&mut self) {
        self.stored = Stored::default();
    }

    /// Starts another run, with the data of an earlier state or with none.
    pub(crate) fn restart(&mut self, run: u64, earlier: Option<&Node>) {
        self.stored = earlier.map(|node| node.stored.clone()).unwrap_or_default();
        self.run = run;
    }
}
