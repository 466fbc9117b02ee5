//! Acquiring: one round asks all nodes, and rounds without a winner are repeated.

use std::time::{Duration, Instant, SystemTime};

use super::Redlock;
use super::answers::Answers;
use super::call::Call;
use super::round::{Reply, Round, Verdict};
use super::scripts::Acquired;
use crate::backend::{Attempt, Claim, validity_of};
use crate::error::BackendError;
use crate::token::FencingToken;

/// The most rounds for a lock that no one owner holds on a majority, before it is reported as busy. Several
/// callers that compete may each get too few nodes.
const ROUNDS: u32 = 8;

/// The longest pause between two of these rounds.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of a round.
enum Tried {
    Granted(FencingToken),
    Busy(Option<Duration>),
    Split(Option<Duration>),
}

impl Redlock {
    /// Runs rounds until the lock is granted, one owner is seen on a majority, or [`ROUNDS`] are over.
    pub(super) async fn acquire_in_rounds(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let began = Instant::now();
        let mut round = 1;
        loop {
            let tried_after = began.elapsed();
            match self.one_round(claim).await? {
                Tried::Granted(token) => {
                    // The lease began with this round, but the caller counts from before the first one.
                    return Ok(Attempt::granted(token, tried_after + validity_of(claim.ttl)));
                }
                Tried::Split(expires_in) if round == ROUNDS => {
                    return Ok(Attempt::busy(expires_in));
                }
                Tried::Busy(expires_in) => return Ok(Attempt::busy(expires_in)),
                Tried::Split(_) => {}
            }
            round += 1;
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.05..=1.0))).await;
        }
    }

    /// Asks all nodes once. A round that is not won is undone, also on nodes that did not answer.
    async fn one_round(&self, claim: &Claim) -> Result<Tried, BackendError> {
        let call = Call::new(self, claim);
        let (round, answers) = self.propose(&call).await;
        let mut verdict = round.verdict();
        if let Verdict::Won(win) = &mut verdict {
            if !win.is_stored() {
                call.write_back(win).await;
            }
            if win.is_stored() {
                return Ok(Tried::Granted(win.token()));
            }
        }
        call.retract(&round).await?;
        match verdict {
            Verdict::Won(_) => Err(BackendError::transient(
                "redlock: the fencing token could not be stored on a majority of the nodes",
            )),
            Verdict::Busy { expires_in } => Ok(Tried::Busy(expires_in)),
            Verdict::Split { expires_in } => Ok(Tried::Split(expires_in)),
            Verdict::TooFew => Err(self.too_few(answers)),
        }
    }

    /// Proposes a token to all nodes, until the round is decided.
    async fn propose(&self, call: &Call<'_>) -> (Round, Answers<Acquired>) {
        let mut round = Round::new(self.0.nodes.len());
        let answers = call.acquire(by_this_clock()).await;
        for (node, answer) in answers.all() {
            round.hear(node, self.reply(node, answer));
        }
        (round, answers)
    }

    /// What an answer means for the round.
    fn reply(&self, node: usize, answer: Result<&Acquired, &BackendError>) -> Reply {
        match answer {
            Ok(Acquired::Granted(token)) => Reply::Granted(*token),
            Ok(Acquired::Busy { left, owner }) => Reply::Busy { owner: *owner, left: *left },
            Ok(Acquired::Unmarked) => {
                self.0.nodes[node].forget_greeting();
                Reply::Absent
            }
            Err(error) if error.may_have_been_sent() => Reply::Silent,
            Ok(Acquired::GivenUp | Acquired::Quarantined(_)) | Err(_) => Reply::Absent,
        }
    }

    fn too_few(&self, answers: Answers<Acquired>) -> BackendError {
        let quarantined = answers.iter().filter_map(|(node, answer)| match answer {
            Acquired::Quarantined(left) => Some((node, *left)),
            Acquired::Unmarked => Some((node, Duration::ZERO)),
            _ => None,
        });
        let quarantined = quarantined.collect();
        let (_, failures) = answers.into_parts();
        failures.with_quarantined(quarantined).explain(&self.0.nodes)
    }
}

/// The proposed token: the time of this machine's clock, in microseconds.
fn by_this_clock() -> FencingToken {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    FencingToken::new(u64::try_from(now.as_micros()).unwrap_or(0))
}
