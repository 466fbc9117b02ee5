//! A process's client: rounds that ask all nodes, as in the Redlock backend.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::gather::Answered;
use super::{MAX_LEASE, Majority, TOLERANCE, bits, micros, owner};
use crate::backend::{
    Answer as Pending, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release,
    Released, Renewal, Watch, validity_of,
};
use crate::chance;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::majority::model::{Answer, Asker, Renewed, Shown};
use crate::lock_table::majority::round::{Reply, Round, Verdict, Win, majority};
use crate::sim::calls::Notices;
use crate::sim::store::{What, digest};
use crate::stores::shared::tombstones::Tombstones;
use crate::timer;
use crate::token::FencingToken;

/// The most rounds for a lock that no one owner holds on a majority, and the longest pause between two of them.
const ROUNDS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// How long a node may take, if the ttl is long.
const NODE_TIMEOUT: Duration = Duration::from_millis(100);

/// By how much the clock of a process may be wrong.
const WRONG: Duration = Duration::from_hours(5);

/// How many of the processes have a clock that is wrong.
const WRONG_CLOCKS: f64 = 0.2;

/// A process's client.
pub(in crate::sim::store) struct MajorityClient {
    pub(super) server: Arc<Majority>,
    /// The run of each node to which it is connected.
    greeted: Mutex<Vec<Option<u64>>>,
    round: AtomicU64,
    tombstones: Tombstones,
    /// How far its clock is ahead, in microseconds.
    ahead: i64,
}

/// What came of a round.
enum Tried {
    Granted(FencingToken),
    Busy(Option<Duration>),
    Split(Option<Duration>),
}

impl MajorityClient {
    pub(in crate::sim::store) fn new(server: Arc<Majority>) -> Self {
        let greeted = Mutex::new(vec![None; server.nodes.len()]);
        let is_wrong = chance::between(0.0, 1.0) < WRONG_CLOCKS;
        let wrong = i64::try_from(micros(WRONG.mul_f64(chance::between(0.0, 1.0)))).unwrap_or(0);
        let ahead = match (is_wrong, wrong % 2 == 0) {
            (false, _) => 0,
            (true, true) => wrong,
            (true, false) => -wrong,
        };
        let (round, tombstones) = (AtomicU64::new(1), Tombstones::default());
        Self { server, greeted, round, tombstones, ahead }
    }

    pub(super) fn greeted(&self) -> MutexGuard<'_, Vec<Option<u64>>> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn nodes(&self) -> usize {
        self.server.nodes.len()
    }

    pub(super) fn majority(&self) -> usize {
        majority(self.nodes())
    }

    /// How long a node may take: well below the ttl, so that a silent node does not use it up.
    pub(super) fn limit(ttl: Duration) -> Duration {
        NODE_TIMEOUT.min(ttl / 4)
    }

    /// The next round of this process.
    pub(super) fn next_round(&self) -> u64 {
        self.round.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn too_few() -> BackendError {
        BackendError::transient("fewer nodes than a majority count")
    }

    /// The proposed token: the time of this machine's clock, in microseconds.
    fn by_this_clock(&self) -> u64 {
        let now = crate::sim::clock::time_of_day().unwrap_or(UNIX_EPOCH);
        let now = micros(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        now.saturating_add_signed(self.ahead)
    }

    /// Asks all nodes once. A round that is not won is undone, also on nodes that did not answer.
    async fn one_round(&self, claim: &Claim) -> Result<Tried, BackendError> {
        let number = self.next_round();
        let round = self.propose(claim, number).await;
        let mut verdict = round.verdict();
        if let Verdict::Won(win) = &mut verdict {
            if !win.is_stored() {
                self.write_back(claim, number, win).await;
            }
            if win.is_stored() {
                return Ok(Tried::Granted(win.token()));
            }
        }
        self.retract(claim, number, &round).await?;
        match verdict {
            Verdict::Won(_) | Verdict::TooFew => Err(Self::too_few()),
            Verdict::Busy { expires_in } => Ok(Tried::Busy(expires_in)),
            Verdict::Split { expires_in } => Ok(Tried::Split(expires_in)),
        }
    }

    /// Proposes a token to all nodes, until the round is decided.
    async fn propose(&self, claim: &Claim, number: u64) -> Round {
        let (key, holder, ttl) = (claim.key.clone(), bits(claim.owner), micros(claim.ttl));
        let proposed = self.by_this_clock();
        let what = What { name: "acquire", digest: digest(claim), may_repeat: false };
        let asked = self.ask_nodes(
            0..self.nodes(),
            (what, Self::limit(claim.ttl)),
            move |state, run, visit| {
                let asker = Asker { owner: holder, round: number, run };
                let tolerance = micros(TOLERANCE);
                state.script(&key, visit, |node| node.acquire(asker, ttl, proposed, tolerance))
            },
            |answers| self.is_decided(answers),
        );
        let mut round = Round::new(self.nodes());
        for (node, answer) in asked.await {
            round.hear(node, self.reply(node, answer));
        }
        round
    }

    /// Whether a majority has granted the lock, or no longer can.
    fn is_decided(&self, answers: &[Answered<Answer>]) -> bool {
        let is_granted = |answer: &&Answered<_>| matches!(answer.1, Ok(Answer::Granted(_)));
        let granted = answers.iter().filter(is_granted).count();
        granted >= self.majority() || granted + self.nodes() - answers.len() < self.majority()
    }

    /// What an answer means for the round.
    fn reply(&self, node: usize, answer: Result<Answer, BackendError>) -> Reply {
        match answer {
            Ok(Answer::Granted(token)) => Reply::Granted(FencingToken::new(token)),
            Ok(Answer::Busy { owner: holder, left }) => {
                Reply::Busy { owner: Some(owner(holder)), left: Some(Duration::from_micros(left)) }
            }
            Ok(Answer::Unmarked) => {
                self.greeted()[node] = None;
                Reply::Absent
            }
            Err(error) if error.may_have_been_sent() => Reply::Silent,
            Ok(Answer::GivenUp | Answer::Quarantined(_)) | Err(_) => Reply::Absent,
        }
    }

    /// Stores the token on the nodes that granted a smaller one.
    async fn write_back(&self, claim: &Claim, number: u64, win: &mut Win) {
        let (key, holder, token) = (claim.key.clone(), bits(claim.owner), win.token().get());
        let what = What { name: "raise", digest: digest(claim), may_repeat: false };
        let asked = self.ask_nodes(
            win.behind().to_vec(),
            (what, Self::limit(claim.ttl)),
            move |state, run, visit| {
                let asker = Asker { owner: holder, round: number, run };
                state.script(&key, visit, |node| node.raise(asker, token))
            },
            |answers| matches!(answers.last(), Some((_, Ok(true)))) && win.wrote(),
        );
        asked.await;
    }

    /// What a majority of the nodes shows.
    async fn shown(&self, prefix: &str) -> Result<Vec<(LockKey, Shown)>, BackendError> {
        let prefix = prefix.to_owned();
        let what = What { name: "list", digest: 0, may_repeat: false };
        let asked = self.ask_nodes(
            0..self.nodes(),
            (what, NODE_TIMEOUT),
            move |state, _, visit| state.list(&prefix, visit),
            |_| false,
        );
        let lists: Vec<_> = asked.await.into_iter().filter_map(|(_, list)| list.ok()).collect();
        if lists.len() < self.majority() {
            return Err(Self::too_few());
        }
        let all: Vec<_> = lists.into_iter().flatten().collect();
        let on_majority = |(key, one): &(LockKey, Shown)| {
            let same = all.iter().filter(|(other, its)| other == key && its.owner == one.owner);
            same.count() >= self.majority()
        };
        let mut held: Vec<_> = all.iter().filter(|shown| on_majority(shown)).cloned().collect();
        held.sort_by(|(key, one), (other, its)| key.cmp(other).then(its.token.cmp(&one.token)));
        held.dedup_by(|(key, _), (other, _)| key == other);
        Ok(held)
    }
}

fn holder(shown: Shown) -> Holder {
    let left = Duration::from_micros(shown.left);
    Holder::new(Some(owner(shown.owner)), FencingToken::new(shown.token), left)
}

impl AsyncBackend for MajorityClient {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::LEASES.with_ttl(Duration::from_millis(50), MAX_LEASE);
        // The model of the nodes has none.
        able.with_min_hold(false)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        let mut round = 1;
        loop {
            let tried_after = Moment::now().since(&began);
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
            timer::sleep(PAUSE.mul_f64(chance::between(0.05, 1.0))).await;
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let (number, key, holder) = (self.next_round(), claim.key.clone(), bits(claim.owner));
        let (ttl, token) = (micros(claim.ttl), claim.token.map_or(0, FencingToken::get));
        let what = What { name: "renew", digest: digest(claim), may_repeat: false };
        let counted = |answers: &[Answered<Renewed>], kind: Renewed| {
            answers.iter().filter(|(_, answer)| matches!(answer, Ok(is) if *is == kind)).count()
        };
        let asked = self.ask_nodes(
            0..self.nodes(),
            (what, Self::limit(claim.ttl)),
            move |state, run, visit| {
                let asker = Asker { owner: holder, round: number, run };
                state.script(&key, visit, |node| node.renew(asker, ttl, token))
            },
            |answers| counted(answers, Renewed::Counts) >= self.majority(),
        );
        let answers = asked.await;
        if counted(&answers, Renewed::Counts) >= self.majority() {
            Ok(Renewal::Renewed { validity: validity_of(claim.ttl) })
        } else if self.nodes() - counted(&answers, Renewed::NotHeld) < self.majority() {
            Ok(Renewal::NotHeld)
        } else {
            Err(Self::too_few())
        }
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.tombstones.note(claim);
        }
        self.release_everywhere(claim, release).await
    }

    async fn watch(&self, key: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        let notices = Notices::new();
        let (key, watch) = (key.clone(), notices.id());
        let what = What { name: "watch", digest: watch as u64, may_repeat: false };
        let asked = self.ask_nodes(
            0..self.nodes(),
            (what, NODE_TIMEOUT),
            move |state, _, visit| state.watch(&key, watch, visit),
            |answers| answers.len() >= self.majority(),
        );
        let listening = asked.await.iter().filter(|(_, answer)| answer.is_ok()).count();
        if listening < self.majority() {
            return Err(Self::too_few());
        }
        Ok(Box::new(MajorityWatch(notices)))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let shown = self.shown(key.as_str()).await?;
        Ok(shown.into_iter().find(|(other, _)| other == key).map(|(_, shown)| holder(shown)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let shown = self.shown(prefix).await?.into_iter();
        Ok(shown.map(|(key, shown)| LockState::new(key, vec![holder(shown)], vec![])).collect())
    }

    async fn revoke(&self, _: &LockKey) -> Result<bool, BackendError> {
        Err(BackendError::permanent("the model of the nodes does not revoke holds").not_sent())
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.end_everywhere(key).await
    }
}

/// Ended by being dropped: what the nodes send after that reaches nobody.
struct MajorityWatch(Notices);

impl Watch for MajorityWatch {
    fn changed(&mut self) -> Pending<'_, ()> {
        Pending::from_future(self.0.next())
    }
}
