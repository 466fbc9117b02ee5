//! Plain acquires, renewals and releases that are ready at the same moment go out together: many rows in one statement
//! and one commit.
//!
//! A caller whose answer is not in the answer to all of them asks again, alone: after an error that may be that of a
//! neighbour, if its key is in the request twice, or if somebody's transaction keeps a row locked. So a failure of one
//! is not that of the others, nor does it delay them for long.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::LeaseDialect;
use super::connections::{Lane, LeaseStore};
use crate::backend::Claim;
use crate::error::BackendError;
use crate::stores::shared::batcher::{Batcher, Carrier};
use crate::stores::shared::doubt::Doubt;
use crate::stores::shared::sql::prepared::Call;
use crate::stores::shared::sql::store::{Dialect, Message, Tries, failure};
use crate::stores::shared::sql::{self, is_broken};

/// How long a request for several waits for one of its rows.
const WAIT_FOR_A_ROW: Duration = Duration::from_millis(100);

/// How often a request for several may conflict with another transaction before each of them is sent alone.
const CONFLICTS: u32 = 2;

/// How long a request delays those behind it at most.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// What a plain acquire found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is granted, with this token; of a block, the last one.
    Free(u64),
    /// The lease of somebody else ends after this time.
    Held(Duration),
    /// The same, and the claim stands in line.
    #[cfg(feature = "postgres")]
    InLine(Duration),
    /// More than the lease decides: others share the key or wait for it, the acquire was abandoned, or the row has
    /// changed just now.
    Unclear,
}

/// How a request is sent.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    pub(crate) tries: Tries<'a>,
    /// How long it waits for a row; as long as it may take if not set.
    pub(crate) wait: Option<Duration>,
}

impl How<'_> {
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "only PostgreSQL prepares them")
    )]
    pub(crate) async fn send<DB: Dialect>(
        self,
        store: &LeaseStore<DB>,
        lane: Lane,
        call: &Call<'_>,
    ) -> Result<sql::Reply<DB>, sqlx::Error> {
        store.send(lane, Message::Call { call, wait: self.wait }, self.tries).await
    }
}

/// An operation on leases that do not depend on each other.
pub(crate) trait Operation<S: LeaseDialect>: Send + Sync + 'static {
    type Answer: Send + 'static;

    const LANE: Lane;

    /// May it be executed twice without harm?
    const IS_REPEATABLE: bool;

    /// Executes it for these claims, whose keys differ and are in order. Answers each, or not if it has to be asked
    /// alone.
    fn execute(
        store: &LeaseStore<S::Database>,
        sql: &S,
        claims: &[&Claim],
        how: How<'_>,
    ) -> impl Future<Output = Result<Vec<Option<Self::Answer>>, sqlx::Error>> + Send;
}

/// Plain acquires.
pub(crate) struct Acquire;
/// Renewals of exclusive leases.
pub(crate) struct Renew;
/// Releases of exclusive leases, at once and without a tombstone.
pub(crate) struct Release;

macro_rules! operation {
    ($operation:ident, $answer:ty, $lane:ident, $is_repeatable:expr, $execute:ident) => {
        impl<S: LeaseDialect> Operation<S> for $operation {
            type Answer = $answer;
            const LANE: Lane = Lane::$lane;
            const IS_REPEATABLE: bool = $is_repeatable;

            fn execute(
                store: &LeaseStore<S::Database>,
                sql: &S,
                claims: &[&Claim],
                how: How<'_>,
            ) -> impl Future<Output = Result<Vec<Option<$answer>>, sqlx::Error>> + Send {
                sql.$execute(store, claims, how)
            }
        }
    };
}

operation!(Acquire, Found, Acquires, true, acquire_each);
operation!(Renew, bool, Holds, true, renew_each);
// If an earlier copy had been executed, the "no" for the second one would look like a loss.
operation!(Release, bool, Holds, false, release_each);

/// Requests of one operation.
pub(crate) struct Together<S: LeaseDialect, O: Operation<S>> {
    one: Sender<S, O>,
    batcher: Batcher<Sender<S, O>>,
}

impl<S: LeaseDialect, O: Operation<S>> Together<S, O> {
    pub(crate) fn new(store: &Arc<LeaseStore<S::Database>>, sql: &Arc<S>) -> Self {
        let sender =
            || Sender { store: Arc::clone(store), sql: Arc::clone(sql), operation: PhantomData };
        Self { one: sender(), batcher: Batcher::new(sender()) }
    }

    /// Executes the operation for this claim, together with others that are ready. `doubt` notes whether a copy of the
    /// request may be executed after the answer.
    pub(crate) async fn run(
        &self,
        claim: &Claim,
        doubt: &Doubt,
    ) -> Result<O::Answer, BackendError> {
        let mut reply = self.batcher.send(claim.clone()).await;
        if reply.in_doubt {
            doubt.note();
        }
        if let Ok(None) = reply.answer {
            reply = self.one.send_one(claim).await;
            if reply.in_doubt {
                doubt.note();
            }
            // It may have been executed together with the others.
            reply.answer = reply.answer.map_err(BackendError::maybe_sent);
        }
        let unanswered = || BackendError::transient("the answer to a statement has no result");
        reply.answer?.ok_or_else(unanswered)
    }
}

struct Sender<S: LeaseDialect, O> {
    store: Arc<LeaseStore<S::Database>>,
    sql: Arc<S>,
    operation: PhantomData<O>,
}

/// The answer to one claim.
struct Reply<T> {
    /// `None`: it has to be asked alone.
    answer: Result<Option<T>, BackendError>,
    in_doubt: bool,
}

impl<S: LeaseDialect, O: Operation<S>> Sender<S, O> {
    async fn send_one(&self, claim: &Claim) -> Reply<O::Answer> {
        let doubt = Doubt::default();
        let how = How { tries: self.tries(&doubt), wait: None };
        let answers = O::execute(&self.store, &self.sql, &[claim], how).await;
        let answer = answers.map(|mut answers| answers.pop().flatten());
        Reply { answer: answer.map_err(failure::<S::Database>), in_doubt: doubt.is_noted() }
    }

    fn tries<'a>(&self, doubt: &'a Doubt) -> Tries<'a> {
        let tries = if O::IS_REPEATABLE { self.store.repeatable(O::LANE) } else { Tries::ONCE };
        Tries { doubt: Some(doubt), ..tries }
    }
}

impl<S: LeaseDialect, O: Operation<S>> Carrier for Sender<S, O> {
    type Request = Claim;
    type Answer = Reply<O::Answer>;

    const MOST: usize = S::MOST_AT_ONCE;
    const MOST_BYTES: usize = 128 * 1024;

    fn limit(&self) -> Duration {
        self.store.limit().min(LONGEST_DELAY)
    }

    fn size(claim: &Claim) -> usize {
        // Written as digits, with the owner and the client info.
        claim.key.as_str().len() * 2 + 256
    }

    async fn carry_one(&self, claim: Claim) -> Reply<O::Answer> {
        self.send_one(&claim).await
    }

    async fn carry(&self, claims: Vec<Claim>) -> Vec<Reply<O::Answer>> {
        let mut order: Vec<usize> = (0..claims.len()).collect();
        order.sort_by(|one, other| claims[*one].key.cmp(&claims[*other].key));
        order.dedup_by(|one, other| claims[*one].key == claims[*other].key);
        let sent: Vec<_> = order.iter().map(|at| &claims[*at]).collect();
        let doubt = Doubt::default();
        let tries = Tries { repeats: CONFLICTS, ..self.tries(&doubt) };
        let how = How { tries, wait: Some(WAIT_FOR_A_ROW) };
        let answers = O::execute(&self.store, &self.sql, &sent, how).await;
        let in_doubt = doubt.is_noted();
        let reply = |answer| Reply { answer, in_doubt };
        match answers {
            Ok(answers) => {
                let mut replies: Vec<_> = claims.iter().map(|_| reply(Ok(None))).collect();
                for (at, answer) in order.into_iter().zip(answers) {
                    replies[at].answer = Ok(answer);
                }
                replies
            }
            // After an error that leaves open what was executed, only what is repeatable is sent again.
            Err(error)
                if may_be_of_one::<S::Database>(&error)
                    && (O::IS_REPEATABLE || S::Database::is_undone(&error)) =>
            {
                claims.iter().map(|_| reply(Ok(None))).collect()
            }
            Err(error) => {
                let error = failure::<S::Database>(error);
                claims.iter().map(|_| reply(Err(error.clone()))).collect()
            }
        }
    }

    fn failed(error: BackendError) -> Reply<O::Answer> {
        Reply { answer: Err(error), in_doubt: false }
    }
}

/// Did the server refuse something, perhaps because of one of the claims?
fn may_be_of_one<DB: Dialect>(error: &sqlx::Error) -> bool {
    let is_refused = error.as_database_error().is_some();
    is_refused && !is_broken(error) && !DB::is_unusable(error) && !DB::is_temporary(error)
}
