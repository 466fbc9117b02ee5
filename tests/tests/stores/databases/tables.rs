//! URLs, tables of other versions, changing credentials.

use std::time::Duration;

use dlock_runtime::backend::{Attempt, Backend, Claim};

use super::both::{Database, Options};
use crate::steps::{acquire, registry};

async fn refusal<D: Database>(url: String) -> String {
    let error = D::connect(Options::new(url)).await.expect_err("it is refused");
    assert!(!error.is_transient(), "{error}");
    let message = error.to_string();
    assert!(!message.contains("s3cret") && message.lines().count() == 1, "{message}");
    message
}

pub async fn an_unknown_parameter_of_the_url_is_refused_by_its_name<D: Database>() {
    let server = D::start();
    let url = server.url_by(server.port());
    for (parameter, expected) in [
        ("ssl_mode=REQUIRED", "`ssl_mode`; did you mean `ssl-mode`?"),
        ("sslmoed=s3cret", "`sslmoed`; did you mean `sslmode`?"),
        ("passwd=s3cret", "unknown parameter `passwd`"),
        ("s3cret@host/db", "`?` in its password as `%3F`"),
    ] {
        let message = refusal::<D>(format!("{url}?{parameter}")).await;
        assert!(message.contains(expected), "{parameter}: {message}");
    }
    let known = format!("{url}?statement-cache-capacity=5");
    D::connect(Options::new(known)).await.expect("a known parameter");
}

pub async fn a_table_without_a_column_is_refused<D: Database>() {
    let server = D::start();
    server.ask(D::TABLE_WITHOUT_CLAIMANT).await;
    let message = refusal::<D>(server.url_by(server.port())).await;
    assert!(
        message.contains("`dlock_leases` is not the one") && message.contains("claimant"),
        "{message}"
    );
}

pub async fn a_table_of_a_later_version_is_refused<D: Database>() {
    let server = D::start();
    let url = server.url_by(server.port());
    D::connect(Options::new(url.clone())).await.expect("the table is created");
    server.ask("UPDATE dlock_leases SET claimant = 'v2' WHERE lock_key = ''").await;
    let message = refusal::<D>(url).await;
    assert!(message.contains("later version of dlock"), "{message}");
}

/// Its table and rows, as this version finds them after an upgrade.
pub async fn a_table_of_the_previous_version_is_read<D: Database>() {
    let server = D::start();
    server.ask(D::TABLE_WITHOUT_A_VERSION).await;
    let backend =
        D::connect(Options::new(server.url_by(server.port()))).await.expect("it is readable");
    let mut mine = Claim::new("alone".into(), Duration::from_secs(30));
    let rival = backend.try_acquire(&mine).await.expect("an answer");
    assert!(matches!(rival, Attempt::Busy { .. }), "{rival:?}");
    let holder = backend.inspect(&mine.key).await.expect("an answer").expect("a holder");
    assert_eq!(holder.token.get(), 7);
    mine.owner = holder.owner.expect("an owner");
    let again = backend.try_acquire(&mine).await.expect("an answer");
    assert!(matches!(again, Attempt::Granted { token, .. } if token.get() == 7), "{again:?}");
    let registry = registry(backend);
    let next = acquire(&registry, "another").await;
    assert!(next.fencing_token().get() > 1 << 60, "the largest token was forgotten");
}

pub async fn new_credentials_of_a_pool_apply_to_all_connections<D: Database>() {
    const TTL: Duration = Duration::from_secs(2);
    let server = D::start();
    let (backend, pool) = D::over_a_pool_of(1, &server.url_by(server.port())).await;
    let registry = registry(backend);
    server.make_shop().await;
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases TO shop").await;
    let guard = registry.lock("k").ttl(TTL).acquire().await.expect("the lock");
    D::change_user(&pool, &server.url_of_shop());
    // The body occupies the pool's only connection, so the renewal opens its own.
    let connection = pool.acquire().await.expect("it is free");
    let lost = tokio::time::timeout(TTL * 2, guard.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    let of_shop = server.ask(D::CONNECTIONS_OF_SHOP).await;
    assert!(of_shop >= Some(1), "{of_shop:?} connections have the new credentials");
    drop(connection);
    guard.release().await.expect("held to the end");
}
