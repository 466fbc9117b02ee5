//! Fencing tokens grow with every grant.

use std::time::Duration;

use super::super::context::{
    Context, LONG, attempt, ensure, granted, kill, releases, short, tries,
};
use super::super::{Finding, Rule};
use super::rules;
use crate::backend::{Attempt, Backend, Claim, Mode, Release};
use crate::token::FencingToken;

pub(super) fn rules() -> Vec<Rule> {
    rules![
        tokens_grow_with_every_grant,
        tokens_grow_across_expiry_and_forced_release,
        a_token_is_issued_after_the_wait,
        the_tokens_of_a_block_are_reserved,
        blocks_that_are_granted_together_do_not_mix,
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
    // Repeats the acquire while it is held, which returns the same token, or of several nodes a larger one.
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

/// How a lease ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Release,
    /// With a tombstone.
    LateAcquire,
    ForcedRelease,
    Expiry,
}

async fn the_tokens_of_a_block_are_reserved(context: Context) -> Finding {
    const BLOCK: u16 = 1_024;
    let other = context.backend().await?;
    let able = other.capabilities();
    let mut before = 0;
    // A release with a tombstone may leave the store with another kind of record.
    let ends = [End::Release, End::ForcedRelease, End::LateAcquire, End::Expiry, End::Release];
    for (round, end) in ends.into_iter().enumerate() {
        let (one, key) = (context.backend().await?, context.key("k"));
        let expires = matches!(end, End::Expiry);
        let ttl = if expires { short(&*one, Duration::from_millis(60)) } else { LONG };
        let claim = Claim::new(key.clone(), ttl).with_token_block(BLOCK);
        let attempt = attempt(&*one, &claim).await?;
        let (first, last) = block_of(&attempt, &claim)?;
        ensure!(first > before, "{first} is in a block that begins after {before}");
        if !expires {
            let repeated = claim.clone().with_token_block(1);
            let (again, _) = granted(&*one, &repeated).await?;
            ensure!(again.get() >= last, "{again} is below {last}, the last token of its block");
        }
        let late_acquire = matches!(end, End::LateAcquire);
        let release = Release { late_acquire, ..Release::default() };
        let mut left = None;
        match end {
            End::Release | End::LateAcquire => {
                let released = one.release(&claim, release).await;
                released.map_err(|error| error.to_string())?;
            }
            End::ForcedRelease => {
                one.force_release(&key).await.map_err(|error| error.to_string())?;
            }
            // `eventually_granted` waits for it.
            End::Expiry => left = kill(one),
        }
        let reader = if able.shared && round % 2 == 1 { Mode::Shared } else { Mode::Exclusive };
        let next = Claim::new(key.clone(), LONG).with_mode(reader);
        let after = eventually_granted(&*other, &next).await?;
        ensure!(after.get() > last, "after {end:?}: {after} is not above the block's end {last}");
        before = after.get();
        releases(&*other, &next).await?;
        drop(left);
    }
    Ok(())
}

/// The first and the last token of a grant.
fn block_of(attempt: &Attempt, claim: &Claim) -> Result<(u64, u64), String> {
    let Attempt::Granted { token, token_block, .. } = attempt else {
        return Err(format!("`{}` is busy although nobody holds it", claim.key));
    };
    let asked = claim.token_block;
    ensure!(
        (1..=asked).contains(token_block),
        "{token_block} tokens were granted, instead of {asked}"
    );
    Ok((token.get(), token.get() + u64::from(*token_block) - 1))
}

async fn blocks_that_are_granted_together_do_not_mix(context: Context) -> Finding {
    let backend = context.backend().await?;
    let mut before = [0; 4];
    // The first time, the store knows nothing of the keys.
    for blocks in [[1, 1_024, 8, 1], [1_024, 1, 1, 8], [8, 8, 1_024, 1_024], [1, 1, 1, 1]] {
        let claims: Vec<_> = blocks
            .iter()
            .enumerate()
            .map(|(at, block)| {
                Claim::new(context.key(&format!("k{at}")), LONG).with_token_block(*block)
            })
            .collect();
        let answers = backend.try_acquire_many(&claims).all(claims.len()).await;
        for (at, (answer, claim)) in answers.into_iter().zip(&claims).enumerate() {
            let granted_together = match answer {
                Ok(answer) => answer,
                // The machine may be busy.
                Err(error) if error.is_transient() => attempt(&*backend, claim).await?,
                Err(error) => return Err(error.to_string()),
            };
            let (first, last) = block_of(&granted_together, claim)?;
            ensure!(first > before[at], "{first} is in a block that begins after {}", before[at]);
            let (again, _) = granted(&*backend, &claim.clone().with_token_block(1)).await?;
            ensure!(again.get() >= last, "{again} is below {last}, the last token of its block");
            before[at] = again.get();
        }
        for claim in &claims {
            releases(&*backend, claim).await?;
        }
    }
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
