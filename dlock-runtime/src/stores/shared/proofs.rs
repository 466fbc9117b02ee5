//! How long a session of ZooKeeper provably lasts, by this process's own clock.
//!
//! Only the leader ends sessions: it ends a session that it has not heard of for the session's timeout. A client talks to
//! a follower, which answers reads and pings by itself, even when it is cut off from the leader. When the leader asks,
//! twice per tick, the follower reports which sessions were in use. An answer alone therefore proves nothing. A *write*
//! that was committed went through the leader, after everything that the follower had reported on the same connection
//! before. It proves that the leader knows of the requests that were answered one report period earlier, and that it ends
//! the session one timeout after them at the earliest. A new leader gives every session a whole timeout.
//!
//! # The invariant
//!
//! *The leader has heard of the session at `known` or later.* It therefore ends the session at `known` plus the timeout at
//! the earliest, whatever happens from now on. This is what [`Proofs::remaining`] returns.
//!
//! The invariant holds at the beginning, because the leader created the session after it was requested. It is preserved,
//! because `known` becomes the moment *t* at which a request was sent only if there is a write such that
//!
//! 1. the request was answered at *a*, and the write was sent at *s*, with *a* + `report` ≤ *s*, and
//! 2. the write was committed.
//!
//! The follower noted the session by *a*, and reported it within a `report` of *a*. That is before it passed on the write,
//! which reached it after *s*. Both went the same way, so the leader had the report when it had the write. The leader has
//! thus heard of the session after *t*, when the request was sent. If the client changed to another follower between *a*
//! and *s*, the new follower asked the leader to confirm the session, which the leader counts as a sign of life after *a*.
//!
//! # What is remembered
//!
//! For all requests that were answered in one slice of time, only the latest sending and the latest answer are kept: a
//! write that proves the latest answer proves each of them. A write removes the slices that it proves, because `known` then
//! contains all that they can ever contribute. If there are still too many slices, the two oldest are merged, and the
//! merged slice counts only when the later of the two does. Slices are merged only when they cover more than a timeout,
//! however many requests there are. Before that, a slice has become a report old, and a write can prove it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backend::validity_of;
use crate::clock::Moment;

/// The requests that were answered in one slice of time.
#[derive(Clone, Copy, Debug)]
struct Slice {
    began: Moment,
    /// When the latest of them was sent.
    sent: Moment,
    /// When the last of them was answered.
    answered: Moment,
}

/// What is known about one session.
#[derive(Debug)]
pub(crate) struct Proofs {
    timeout: Duration,
    /// What no write has proved yet, in the order of the answers.
    slices: VecDeque<Slice>,
    /// The leader has heard of the session at this moment or later.
    known: Moment,
}

/// The number of slices per timeout, and the most that are remembered.
const SLICES: u32 = 60;
const MOST: usize = 64;

impl Proofs {
    /// For a new session that was requested at this moment, and that the leader has created.
    pub(crate) fn new(timeout: Duration, asked_for: Moment) -> Self {
        Self { timeout, slices: VecDeque::with_capacity(MOST + 1), known: asked_for }
    }

    /// How long it may take until the leader knows of an answered request. It takes half a tick, and a tick is at most
    /// half of the shortest timeout that a server grants. The rest is a margin.
    fn report(&self) -> Duration {
        self.timeout / 3
    }

    /// How often the session must be used, so that a write proves about half of its timeout.
    pub(crate) fn beat(timeout: Duration) -> Duration {
        timeout / 6
    }

    /// A request that was sent at this moment has been answered now, possibly by a follower.
    pub(crate) fn touched(&mut self, sent: Moment) {
        self.answered(sent, Moment::now());
    }

    /// A write that was sent at this moment has been committed.
    pub(crate) fn wrote(&mut self, sent: Moment) {
        self.committed(sent);
        self.touched(sent);
    }

    fn answered(&mut self, sent: Moment, answered: Moment) {
        match self.slices.back_mut() {
            Some(last) if answered.since(&last.began) < self.timeout / SLICES => {
                last.sent = later(last.sent, sent);
                last.answered = later(last.answered, answered);
            }
            _ => self.slices.push_back(Slice { began: answered, sent, answered }),
        }
        if self.slices.len() > MOST
            && let Some(oldest) = self.slices.pop_front()
            && let Some(next) = self.slices.front_mut()
        {
            // The merged slice counts when the later of the two does.
            next.sent = later(next.sent, oldest.sent);
        }
    }

    fn committed(&mut self, sent: Moment) {
        let report = self.report();
        while let Some(slice) = self.slices.front()
            && sent.since(&slice.answered) >= report
        {
            self.known = later(self.known, slice.sent);
            self.slices.pop_front();
        }
    }

    /// How long the session provably lasts from now.
    pub(crate) fn remaining(&self) -> Duration {
        validity_of(self.timeout).saturating_sub(self.known.elapsed())
    }
}

fn later(one: Moment, other: Moment) -> Moment {
    if other.since(&one) > Duration::ZERO { other } else { one }
}

#[cfg(test)]
mod tests;
