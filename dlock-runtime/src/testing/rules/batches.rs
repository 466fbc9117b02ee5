//! Requests with several independent claims: each claim has its own answer.

use std::time::Duration;

use super::super::context::{
    Context, LONG, TIMEOUT, ensure, granted, is_free_soon, renews, retrying,
};
use super::super::{Finding, Rule};
use super::rules;
use crate::backend::{Answers, Attempt, Backend, Claim, Release, Released, Renewal};
use crate::error::BackendError;
use crate::token::FencingToken;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        each_claim_of_a_request_has_its_own_answer,
        of_two_claims_for_one_key_in_a_request_one_is_granted,
        an_abandoned_claim_is_not_granted_beside_others,
    ]
}

async fn each_claim_of_a_request_has_its_own_answer(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let claims = ["a", "b", "c"].map(|name| Claim::new(context.key(name), LONG));
    let rival = Claim::new(claims[1].key.clone(), LONG);
    granted(&other, &rival).await?;
    let tokens = acquires(&one, &claims).await?;
    let [Some(a), None, Some(c)] = tokens[..] else {
        return Err(format!("of three keys, the second of them held, were granted: {tokens:?}"));
    };
    let mut held = claims.clone();
    for (claim, token) in held.iter_mut().zip([Some(a), None, Some(c)]) {
        claim.token = token;
    }
    let renewed = retrying!(all(one.renew_many(&held), 3))?;
    let renewed: Vec<_> =
        renewed.iter().map(|one| matches!(one, Renewal::Renewed { .. })).collect();
    ensure!(renewed == [true, false, true], "two of three leases were held, renewed: {renewed:?}");
    let releases = held.map(|claim| (claim, Release::default()));
    let answers = all(one.release_many(&releases), 3).await;
    if let Ok(released) = answers {
        let expected = [Released::Released, Released::NotHeld, Released::Released];
        ensure!(released == expected, "two of three leases were held, released: {released:?}");
    } else {
        // The first request may have been executed.
        retrying!(all(one.release_many(&releases), 3))?;
    }
    ensure!(renews(&other, &rival).await?, "the lease of another process was released");
    is_free_soon(&context, &claims[0].key).await?;
    is_free_soon(&context, &claims[2].key).await
}

async fn of_two_claims_for_one_key_in_a_request_one_is_granted(context: Context) -> Finding {
    let backend = context.backend().await?;
    let claims = ["a", "b", "a"].map(|name| Claim::new(context.key(name), LONG));
    let granted: Vec<_> = acquires(&backend, &claims).await?.iter().map(Option::is_some).collect();
    ensure!(
        granted[1] && granted[0] != granted[2],
        "a request with two claims for one key and one for another granted {granted:?}"
    );
    let releases =
        claims.map(|claim| (claim, Release { late_acquire: true, ..Release::default() }));
    retrying!(all(backend.release_many(&releases), 3))?;
    is_free_soon(&context, &releases[0].0.key).await
}

async fn an_abandoned_claim_is_not_granted_beside_others(context: Context) -> Finding {
    let backend = context.backend().await?;
    let claims = ["a", "b"].map(|name| Claim::new(context.key(name), LONG));
    let abandoned = [(claims[0].clone(), Release { late_acquire: true, ..Release::default() })];
    retrying!(all(backend.release_many(&abandoned), 1))?;
    let granted: Vec<_> = acquires(&backend, &claims).await?.iter().map(Option::is_some).collect();
    ensure!(granted == [false, true], "an abandoned claim and a new one were granted: {granted:?}");
    is_free_soon(&context, &claims[0].key).await?;
    let releases = [(claims[1].clone(), Release::default())];
    retrying!(all(backend.release_many(&releases), 1)).map(drop)
}

/// Acquires each key once. Returns the tokens of those that were granted.
async fn acquires(
    backend: &dyn Backend,
    claims: &[Claim],
) -> Result<Vec<Option<FencingToken>>, String> {
    let attempts = retrying!(all(backend.try_acquire_many(claims), claims.len()))?;
    let token = |attempt| match attempt {
        Attempt::Granted { token, .. } => Some(token),
        Attempt::Busy { .. } => None,
    };
    Ok(attempts.into_iter().map(token).collect())
}

/// The answers to all claims, or the first failure.
async fn all<T: Send + Unpin>(
    answers: Answers<'_, T>,
    claims: usize,
) -> Result<Vec<T>, BackendError> {
    answers.all(claims).await.into_iter().collect()
}
