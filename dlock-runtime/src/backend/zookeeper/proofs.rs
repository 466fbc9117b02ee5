//! How long a session surely lasts, judged by our own clock.
//!
//! Only the leader ends sessions: one that it has not heard of for its timeout. A client talks to a
//! follower, which answers reads and pings by itself, also when it has been cut off from its leader, and
//! reports who has talked to it when the leader asks, twice in each tick. So an answer alone proves
//! nothing. A *write* that was committed went through the leader, after everything that the follower had
//! reported on the same connection before: it proves that the leader knows of what was answered a report's
//! period earlier, and ends the session a timeout after that at the soonest. A new leader gives every
//! session a whole timeout.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backend::validity_of;
use crate::clock::Moment;

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
struct Touch {
    sent: Moment,
    answered: Moment,
}

/// What is known of one session.
#[derive(Debug)]
pub(super) struct Proofs {
    timeout: Duration,
    /// Those of the last timeout, in the order of their answers.
    touches: VecDeque<Touch>,
    /// The leader knows that the session was used after this.
    known: Moment,
}

/// How many touches are remembered.
const MOST_TOUCHES: usize = 64;

impl Proofs {
    /// Of a new session: it was asked for at this moment, and the leader has made it.
    pub(super) fn new(timeout: Duration, asked_for: Moment) -> Self {
        Self { timeout, touches: VecDeque::new(), known: asked_for }
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
        self.touches.push_back(Touch { sent, answered: Moment::now() });
        // The oldest but a few are of no use: a later one proves more.
        if self.touches.len() > MOST_TOUCHES {
            self.touches.pop_front();
        }
    }

    /// A write that was sent at this moment has been committed.
    pub(super) fn wrote(&mut self, sent: Moment) {
        let report = self.report();
        let reported = |touch: &&Touch| sent.since(&touch.answered) >= report;
        if let Some(touch) = self.touches.iter().rfind(reported)
            && touch.sent.since(&self.known) > Duration::ZERO
        {
            self.known = touch.sent;
        }
        self.touched(sent);
    }

    /// How long the session surely lasts from now.
    pub(super) fn remaining(&self) -> Duration {
        validity_of(self.timeout).saturating_sub(self.known.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn after(seconds: u64) -> Moment {
        tokio::time::advance(SECOND * u32::try_from(seconds).unwrap()).await;
        Moment::now()
    }

    /// But for what reading the clocks takes.
    fn near(left: Duration, seconds: f64) -> bool {
        (left.as_secs_f64() - seconds).abs() < 0.01
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_proves_what_was_answered_a_report_before_it() {
        // 12 s less the allowance for drift are 11.878 s, and a report takes at most 4 s.
        let mut proofs = Proofs::new(SECOND * 12, Moment::now());
        assert!(near(proofs.remaining(), 11.878));
        proofs.touched(after(2).await);
        proofs.touched(after(3).await);
        // At 7 s what was answered at 2 s has been reported; what was answered at 5 s perhaps not.
        proofs.wrote(after(2).await);
        assert!(near(proofs.remaining(), 11.878 - 5.0));
        // At 10 s that of 5 s has been as well.
        proofs.wrote(after(3).await);
        assert!(near(proofs.remaining(), 11.878 - 5.0));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_of_a_follower_alone_prove_nothing() {
        let mut proofs = Proofs::new(SECOND * 12, Moment::now());
        for _ in 0..20 {
            proofs.touched(after(1).await);
        }
        assert_eq!(proofs.remaining(), Duration::ZERO);
    }
}
