//! Fencing tokens grow with every grant.

use std::time::Duration;

use super::super::context::{Context, LONG, ensure, granted, kill, releases, short, tries};
use super::super::{Finding, Rule};
use super::rules;
use crate::backend::{Backend, Claim};
use crate::token::FencingToken;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        tokens_grow_with_every_grant,
        tokens_grow_across_expiry_and_forced_release,
        a_token_is_issued_after_the_wait,
        a_fenced_store_rejects_the_stale_holder,
    ]
}

async fn tokens_grow_with_every_grant(context: Context) -> Finding {
    let backends = [context.backend().await?, context.backend().await?];
    let mut last = FencingToken::new(0);
    for round in 0..30 {
        let backend = &backends[round % 2];
        let claim = Claim::new(context.key("k"), LONG);
        let (token, _) = granted(backend, &claim).await?;
        ensure!(token > last, "grant {round} has the token {token} after {last}");
        ensure!(i64::try_from(token.get()).is_ok(), "the token {token} is beyond 2^63");
        last = token;
        releases(backend, &claim).await?;
    }
    Ok(())
}

async fn tokens_grow_across_expiry_and_forced_release(context: Context) -> Finding {
    let other = context.backend().await?;
    let mut last = FencingToken::new(0);
    for round in 0..3 {
        let one = context.backend().await?;
        let dying = Claim::new(context.key("k"), short(&one, Duration::from_millis(60)));
        let (token, _) = granted(&one, &dying).await?;
        let _left = kill(one);
        ensure!(token > last, "grant {round} has the token {token} after {last}");
        let next = Claim::new(context.key("k"), LONG);
        let after_expiry = eventually_granted(&other, &next).await?;
        ensure!(after_expiry > token, "the token {after_expiry} follows {token} after an expiry");
        other.force_release(&next.key).await.map_err(|error| error.to_string())?;
        last = after_expiry;
    }
    Ok(())
}

/// Retries until the current lease has expired.
async fn eventually_granted(backend: &dyn Backend, claim: &Claim) -> Result<FencingToken, String> {
    while !tries(backend, claim).await? {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Repeats the acquire while it is held, which returns the same token.
    Ok(granted(backend, claim).await?.0)
}

async fn a_token_is_issued_after_the_wait(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let [first, overtaking, waiter] = [(); 3].map(|()| Claim::new(key.clone(), LONG));
    granted(&one, &first).await?;
    ensure!(!tries(&other, &waiter).await?, "a held key was granted");
    releases(&one, &first).await?;
    let (before, _) = granted(&one, &overtaking).await?;
    ensure!(!tries(&other, &waiter).await?, "a held key was granted");
    releases(&one, &overtaking).await?;
    let (after, _) = granted(&other, &waiter).await?;
    ensure!(
        after > before,
        "the waiter's token {after} is not larger than {before}, which was granted before it"
    );
    releases(&other, &waiter).await?;
    Ok(())
}

async fn a_fenced_store_rejects_the_stale_holder(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let stale = Claim::new(context.key("k"), short(&one, Duration::from_millis(60)));
    let (stale_token, _) = granted(&one, &stale).await?;
    let _left = kill(one);
    let fresh = Claim::new(stale.key.clone(), LONG);
    let fresh_token = eventually_granted(&other, &fresh).await?;
    // The fenced store remembers the largest token it has seen.
    let mut seen = FencingToken::new(0);
    let mut write = |token: FencingToken| {
        let accepted = token >= seen;
        seen = seen.max(token);
        accepted
    };
    ensure!(write(fresh_token), "the fresh holder's write was rejected");
    ensure!(!write(stale_token), "the stale holder's write was accepted");
    releases(&other, &fresh).await?;
    Ok(())
}
