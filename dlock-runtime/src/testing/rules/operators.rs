//! Operators can list the holders and waiters of a key, and can end a hold safely.

use std::time::{Duration, SystemTime};

use super::super::context::{
    Context, LONG, TIMEOUT, ensure, granted, in_three_tries, is_free_soon, releases, renews, short,
    tries,
};
use super::super::{Finding, Rule};
use super::rules;
use crate::backend::{Backend, Claim, LockState, Mode};
use crate::client_info::ClientInfo;
use crate::error::LockError;

pub(super) fn rules() -> Vec<Rule> {
    let mut all = rules![
        a_list_shows_the_holder_of_a_key,
        a_list_contains_the_keys_with_its_prefix,
        a_released_key_is_not_listed,
        a_revoked_hold_is_not_renewed_but_keeps_its_key,
        a_revoked_holder_releases_its_key,
        a_free_key_cannot_be_revoked,
    ];
    all.extend(rules![if |able| able.shared; all_readers_of_a_key_are_listed_and_revoked]);
    all.extend(rules![if |able| able.fair; a_list_shows_the_waiters_of_a_key]);
    all
}

async fn list(backend: &dyn Backend, prefix: &str) -> Result<Vec<LockState>, String> {
    backend.list(prefix).await.map_err(|error| error.to_string())
}

async fn revokes(backend: &dyn Backend, claim: &Claim) -> Result<bool, String> {
    backend.revoke(&claim.key).await.map_err(|error| error.to_string())
}

async fn a_list_shows_the_holder_of_a_key(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let before = SystemTime::now();
    let client_info = ClientInfo::new("shop::purchase, 1 'x' | Grüße");
    let claim =
        Claim::new(context.key("k {a}/%*\\?[b]"), LONG).with_client_info(client_info.clone());
    let (token, _) = granted(&one, &claim).await?;
    let states = list(&other, claim.key.as_str()).await?;
    let [LockState { key, holders, waiters, .. }] = &states[..] else {
        return Err(format!("one held key is listed as {states:?}"));
    };
    ensure!(*key == claim.key, "the key {:?} is listed as {key:?}", claim.key);
    let [holder] = &holders[..] else { return Err(format!("one holder is listed as {holders:?}")) };
    ensure!(holder.owner == Some(claim.owner), "another owner is listed: {holder:?}");
    ensure!(holder.token == token, "the token {token} is listed as {}", holder.token);
    ensure!(holder.mode == Mode::Exclusive, "an exclusive hold is listed as {holder:?}");
    ensure!(!holder.revoked, "a hold is listed as revoked: {holder:?}");
    let left = holder.expires_in;
    ensure!(left > Duration::ZERO && left <= LONG, "a lease is listed with {left:?} left");
    let who = holder.client_info.as_ref().ok_or("a holder is listed without its client info")?;
    let same = who.host() == client_info.host() && who.process_id() == std::process::id();
    ensure!(same && who.label() == client_info.label(), "{client_info:?} is listed as {who:?}");
    // Stores have a precision of microseconds.
    let since = who.since() + Duration::from_micros(1);
    ensure!(
        since >= before && who.since() <= SystemTime::now(),
        "the holder is listed with `since` {since:?}"
    );
    ensure!(waiters.is_empty(), "nobody waits, but {waiters:?} are listed");
    releases(&one, &claim).await?;
    Ok(())
}

async fn a_list_contains_the_keys_with_its_prefix(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let claims = ["b", "a:1", "a:2", "a_1"].map(|name| Claim::new(context.key(name), LONG));
    for claim in &claims {
        granted(&one, claim).await?;
    }
    let states = list(&other, context.key("a:").as_str()).await?;
    let keys: Vec<_> = states.into_iter().map(|state| state.key).collect();
    let expected = [context.key("a:1"), context.key("a:2")];
    ensure!(keys == expected, "the keys that begin with `a:` are listed as {keys:?}");
    for claim in &claims {
        releases(&one, claim).await?;
    }
    Ok(())
}

async fn a_released_key_is_not_listed(context: Context) -> Finding {
    let backend = context.backend().await?;
    let claim = Claim::new(context.key("k"), LONG);
    granted(&backend, &claim).await?;
    releases(&backend, &claim).await?;
    let states = list(&backend, claim.key.as_str()).await?;
    ensure!(states.is_empty(), "a released key is listed as {states:?}");
    Ok(())
}

async fn a_revoked_hold_is_not_renewed_but_keeps_its_key(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let holder = Claim::new(context.key("k"), LONG);
    let rival = Claim::new(holder.key.clone(), LONG);
    let (token, _) = granted(&one, &holder).await?;
    ensure!(revokes(&other, &holder).await?, "a held key's revocation found nothing");
    ensure!(!tries(&other, &rival).await?, "a revoked key was granted before its release");
    let states = list(&other, holder.key.as_str()).await?;
    let revoked = states.iter().flat_map(|state| &state.holders).all(|holder| holder.revoked);
    ensure!(states.len() == 1 && revoked, "a revoked hold is listed as {states:?}");
    ensure!(!renews(&one, &holder).await?, "a revoked hold was renewed");
    ensure!(releases(&one, &holder).await?, "a revoked hold could not be released");
    let (larger, _) = granted(&other, &rival)
        .await
        .map_err(|error| format!("a revoked key is not free after its release: {error}"))?;
    ensure!(larger > token, "the token did not grow across a revocation: {token}, then {larger}");
    ensure!(renews(&other, &rival).await?, "the hold after a revoked one could not be renewed");
    releases(&other, &rival).await?;
    Ok(())
}

async fn a_revoked_holder_releases_its_key(context: Context) -> Finding {
    let ttl = short(&context.backend().await?, Duration::from_millis(900));
    // On a busy machine the lease may expire before it is revoked.
    in_three_tries(&context, |key| {
        let context = context.clone();
        async move {
            let (registry, other) = (context.registry().await?, context.registry().await?);
            let body = registry.lock(&key).ttl(ttl).run(async {
                let revoked = other.revoke(&key).await.map_err(|error| error.to_string())?;
                ensure!(revoked, "a held key's revocation found nothing");
                std::future::pending::<Finding>().await
            });
            match tokio::time::timeout(ttl + TIMEOUT, body).await {
                Ok(Err(LockError::Lost { .. })) => {}
                Ok(Ok(finding)) => finding?,
                Ok(Err(error)) => return Err(format!("a revoked holder ended with {error:?}")),
                Err(_) => return Err("a revoked holder kept running".to_owned()),
            }
            is_free_soon(&context, &key).await
        }
    })
    .await
}

async fn a_free_key_cannot_be_revoked(context: Context) -> Finding {
    let backend = context.backend().await?;
    let claim = Claim::new(context.key("k"), LONG);
    ensure!(!revokes(&backend, &claim).await?, "the revocation of a free key found a hold");
    granted(&backend, &claim).await?;
    ensure!(renews(&backend, &claim).await?, "a hold after a revocation could not be renewed");
    releases(&backend, &claim).await?;
    Ok(())
}

async fn all_readers_of_a_key_are_listed_and_revoked(context: Context) -> Finding {
    let (one, other) = (context.backend().await?, context.backend().await?);
    let key = context.key("k");
    let reader = |label| {
        let claim = Claim::new(key.clone(), LONG).with_mode(Mode::Shared);
        claim.with_client_info(ClientInfo::new(label))
    };
    let (first, second) = (reader("first"), reader("second"));
    granted(&one, &first).await?;
    granted(&other, &second).await?;
    let states = list(&one, key.as_str()).await?;
    let holders: Vec<_> = states.iter().flat_map(|state| &state.holders).collect();
    let mut labels: Vec<_> = holders
        .iter()
        .filter(|holder| holder.mode == Mode::Shared)
        .filter_map(|holder| holder.client_info.as_ref().map(ClientInfo::label))
        .collect();
    labels.sort_unstable();
    ensure!(labels == ["first", "second"], "two readers are listed as {states:?}");
    ensure!(revokes(&other, &first).await?, "the revocation of a shared key found nothing");
    for (backend, reader) in [(&one, &first), (&other, &second)] {
        ensure!(!renews(backend, reader).await?, "a reader that was revoked was renewed");
        ensure!(releases(backend, reader).await?, "a revoked reader could not release");
    }
    is_free_soon(&context, &key).await
}

async fn a_list_shows_the_waiters_of_a_key(context: Context) -> Finding {
    let holder = context.registry().await?;
    let (waiter, store) = context.intercepted().await?;
    let key = context.key("k");
    let guard = holder.lock(&key).label("holds").acquire().await.map_err(|e| e.to_string())?;
    let lock = waiter.lock(&key).fair(true).label("waits").wait(TIMEOUT);
    let waiting = tokio::spawn(lock.acquire());
    store.waits_in_queue().await;
    let began = tokio::time::Instant::now();
    loop {
        let states = holder.inspect(key.as_str()).await.map_err(|error| error.to_string())?;
        let [state] = &states[..] else { return Err(format!("one key is listed as {states:?}")) };
        let label = |client_info: &Option<ClientInfo>| {
            client_info.as_ref().map(|who| who.label().to_owned())
        };
        let held =
            state.holders.iter().map(|holder| label(&holder.client_info)).collect::<Vec<_>>();
        let waits = state.waiters.iter().map(|one| label(&one.client_info)).collect::<Vec<_>>();
        if held == [Some("holds".to_owned())] && waits == [Some("waits".to_owned())] {
            break;
        }
        ensure!(began.elapsed() < TIMEOUT, "a holder and a waiter are listed as {state:?}");
        tokio::task::yield_now().await;
    }
    guard.release().await.map_err(|error| error.to_string())?;
    let guard = waiting.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    guard.release().await.map_err(|error| error.to_string())?;
    is_free_soon(&context, &key).await
}
