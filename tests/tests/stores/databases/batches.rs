//! Requests that go out together.

use std::time::Duration;

use dlock_runtime::Mode;
use dlock_runtime::backend::{Attempt, Backend, Claim, Release, Released, Renewal};
use dlock_tests::proxy::Proxy;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::both::{Database, Options, backend};
use crate::steps::registry;

fn claims(keys: impl IntoIterator<Item = String>) -> Vec<Claim> {
    keys.into_iter().map(|key| Claim::new(key.as_str().into(), Duration::from_secs(30))).collect()
}

async fn acquire_all(backend: &impl Backend, claims: &[Claim]) -> Vec<Attempt> {
    let answers = join_all(claims.iter().map(|claim| backend.try_acquire(claim))).await;
    answers.into_iter().map(|answer| answer.expect("an answer")).collect()
}

/// More requests at once than one statement takes. Every third key is held by somebody else.
pub async fn each_of_a_batch_has_its_own_answer<D: Database>() {
    let server = D::start();
    let backend = backend(&server).await;
    let held = |number: usize| number % 3 == 2;
    let keys = || (0..200).map(|number| format!("k{number:03}"));
    let others = claims(keys().enumerate().filter(|(number, _)| held(*number)).map(|(_, key)| key));
    for attempt in acquire_all(&backend, &others).await {
        assert!(matches!(attempt, Attempt::Granted { .. }), "{attempt:?}");
    }
    let registry = registry(backend.clone());
    let shared = registry.lock("k000").mode(Mode::Shared).acquire().await.expect("free");
    let ours = claims(keys());
    let is_ours = |number: usize| number > 0 && !held(number);
    for round in 0..2 {
        let attempts = acquire_all(&backend, &ours).await;
        for (number, attempt) in attempts.iter().enumerate() {
            let is_granted = matches!(attempt, Attempt::Granted { .. });
            assert_eq!(is_granted, is_ours(number), "{round}: {number}: {attempt:?}");
        }
    }
    let renewals = join_all(ours.iter().map(|claim| backend.renew(claim))).await;
    for (number, renewal) in renewals.into_iter().enumerate() {
        let is_renewed = matches!(renewal.expect("an answer"), Renewal::Renewed { .. });
        assert_eq!(is_renewed, is_ours(number), "renewal {number}");
    }
    for round in 0..2 {
        let releases = ours.iter().map(|claim| backend.release(claim, Release::default()));
        for (number, released) in join_all(releases).await.into_iter().enumerate() {
            let is_released = matches!(released.expect("an answer"), Released::Released);
            assert_eq!(is_released, round == 0 && is_ours(number), "{round}: release {number}");
        }
    }
    for renewal in join_all(others.iter().map(|claim| backend.renew(claim))).await {
        assert!(matches!(renewal, Ok(Renewal::Renewed { .. })), "{renewal:?}");
    }
    shared.release().await.expect("held");
}

/// Its process is paused, so it does not learn of the failure.
pub async fn a_batch_that_fails_leaves_no_row_locked<D: Database>() {
    let server = D::start();
    let proxy = Proxy::start(server.port()).await;
    let other = backend(&server).await;
    let keys = || ["alone", "b", "c", "d"].map(str::to_owned);
    let before = claims(keys());
    acquire_all(&other, &before).await;
    for claim in &before {
        other.release(claim, Release::default()).await.expect("an answer");
    }
    let options =
        Options { limit: Duration::from_secs(20), ..Options::new(server.url_by(proxy.port())) };
    let paused = D::connect(options).await.expect("the server runs");
    let row = server.lock_row("d").await;
    let asking = tokio::spawn(async move { acquire_all(&paused, &claims(keys())).await });
    while server.waiting().await == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    proxy.stall_answers();
    let claim = &claims(keys())[1];
    let answer = timeout(Duration::from_secs(4), other.try_acquire(claim)).await;
    answer.expect("the row of `b` stays locked").expect("an answer");
    drop(row);
    asking.abort();
}
