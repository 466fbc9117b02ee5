//! How long a session surely lasts, judged by our own clock.
//!
//! Only the leader ends sessions: one that it has not heard of for its timeout. A client talks to a
//! follower, which answers reads and pings by itself, also when it has been cut off from its leader, and
//! reports who has talked to it when the leader asks, twice in each tick. So an answer alone proves
//! nothing. A *write* that was committed went through the leader, after everything that the follower had
//! reported on the same connection before: it proves that the leader knows of what was answered a report's
//! period earlier, and ends the session a timeout after that at the soonest. A new leader gives every
//! session a whole timeout.
//!
//! # The invariant
//!
//! *The leader has heard of the session at `known` or later.* Then it ends the session at `known` plus the
//! timeout at the soonest, whatever happens from now on, and this is what [`Proofs::remaining`] says.
//!
//! It holds at the beginning: the session was made by the leader after it was asked for. It is kept, since
//! `known` becomes the moment *t* at which a request was sent only when there is a write such that
//!
//! 1. the request was answered at *a*, and the write was sent at *s*, with *a* + `report` ≤ *s*, and
//! 2. the write was committed.
//!
//! The follower has noted the session by *a*, and reported it within a `report` of *a*: so before it passed on
//! the write, which came to it after *s*. The two went the same way, so the leader had the report when it had
//! the write. It has heard of the session after *t*, when the request was sent. If the client has changed to
//! another follower between *a* and *s*, that one has asked the leader to confirm the session, which the leader
//! counts as a sign of life after *a*.
//!
//! # What is remembered
//!
//! Of all requests answered in one slice of time only the latest sending and the latest answer: who proves the
//! latest answer has proved each of them. A write takes away the slices that it proves, since all that they can
//! ever say is in `known` then. Should there still be too many, the two oldest become one, of which less is
//! believed. So what is kept is bounded by the *time* that it covers, longer than a timeout, and never by how
//! many requests there were: whatever the rate, some slice is always a report old.

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

/// What is known of one session.
#[derive(Debug)]
pub(super) struct Proofs {
    timeout: Duration,
    /// What no write has proved yet, in the order of the answers.
    slices: VecDeque<Slice>,
    /// The leader has heard of the session at this moment or later.
    known: Moment,
}

/// How many slices a timeout has, and how many are remembered.
const SLICES: u32 = 60;
const MOST: usize = 64;

impl Proofs {
    /// Of a new session: it was asked for at this moment, and the leader has made it.
    pub(super) fn new(timeout: Duration, asked_for: Moment) -> Self {
        Self { timeout, slices: VecDeque::with_capacity(MOST + 1), known: asked_for }
    }

    /// How long it may take until the leader knows of an answered request: half a tick, where a tick is at
    /// most half of the shortest timeout that a server grants; and some.
    fn report(&self) -> Duration {
        self.timeout / 3
    }

    /// How often the session is to be used, so that a write proves about half of its timeout.
    pub(super) fn beat(timeout: Duration) -> Duration {
        timeout / 6
    }

    /// A request that was sent at this moment has been answered now, be it by a follower.
    pub(super) fn touched(&mut self, sent: Moment) {
        self.answered(sent, Moment::now());
    }

    /// A write that was sent at this moment has been committed.
    pub(super) fn wrote(&mut self, sent: Moment) {
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
            // It counts when the later of the two does.
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

    /// How long the session surely lasts from now.
    pub(super) fn remaining(&self) -> Duration {
        validity_of(self.timeout).saturating_sub(self.known.elapsed())
    }
}

fn later(one: Moment, other: Moment) -> Moment {
    if other.since(&one) > Duration::ZERO { other } else { one }
}

#[cfg(test)]
mod tests;
