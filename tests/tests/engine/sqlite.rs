//! What only a real file can show: other writers, concurrent opens from many processes, nothing
//! left behind.

use std::time::Duration;

use dlock_runtime::backend::Sqlite;
use dlock_runtime::{LockError, Registry};
use sqlx::{Connection, Executor, Row, SqliteConnection};
use tempfile::TempDir;

fn file() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    (folder, url)
}

async fn registry(url: &str) -> Registry {
    let backend = Sqlite::connect(url).await.expect("a file");
    Registry::builder().backend("file", backend).build().expect("a registry")
}

#[tokio::test]
async fn a_locked_file_is_retried_until_the_deadline() {
    let (_folder, url) = file();
    let registry = registry(&url).await;
    let mut other = SqliteConnection::connect(&url).await.expect("a file");
    other.execute("BEGIN IMMEDIATE").await.expect("no other writer");
    let acquire = registry.lock("k").wait(Duration::from_secs(30)).acquire();
    let free = async {
        // Longer than SQLite's own busy timeout.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        other.execute("COMMIT").await.expect("our transaction");
    };
    let (guard, ()) = tokio::join!(acquire, free);
    guard.expect("the file was free before the deadline").release().await.expect("held");

    other.execute("BEGIN IMMEDIATE").await.expect("no other writer");
    let wait = Duration::from_millis(300);
    let answer = registry.lock("k").wait(wait).acquire().await;
    assert!(
        matches!(&answer, Err(LockError::Backend { source, .. }) if source.is_transient()),
        "{answer:?}"
    );
    other.execute("COMMIT").await.expect("our transaction");
}

#[tokio::test]
async fn concurrent_opens_all_succeed() {
    let (_folder, url) = file();
    let openings = (0..16).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Sqlite::connect(&url).await.map(|_| ()) })
    });
    for opening in openings.collect::<Vec<_>>() {
        opening.await.expect("no panic").expect("the file");
    }
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let (_folder, url) = file();
    let registry = registry(&url).await;
    for number in 0..50 {
        let guard = registry.lock(format!("k{number}")).acquire().await.expect("free");
        guard.release().await.expect("held");
    }
    let mut other = SqliteConnection::connect(&url).await.expect("a file");
    let rows = other.fetch_one("SELECT count(*) FROM dlock_locks").await.expect("the table");
    assert_eq!(rows.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn tokens_keep_growing_after_a_reopen() {
    let (_folder, url) = file();
    let mut last = None;
    for _ in 0..3 {
        let registry = registry(&url).await;
        let guard = registry.lock("k").acquire().await.expect("free");
        assert!(Some(guard.fencing_token()) > last);
        last = Some(guard.fencing_token());
        guard.release().await.expect("held");
    }
}

#[tokio::test]
async fn an_invalid_url_is_reported_in_one_line() {
    for (url, part) in [
        ("sqlite::memory:", "memory backend"),
        ("sqlite:", "path of a file"),
        ("sqlite:/nowhere/at/all/locks.db", "/nowhere/at/all/locks.db"),
        ("carrier://u:secret@h/db", "scheme `carrier`"),
        ("no url at all", "begins with its scheme"),
        ("memory:x", "`memory:`"),
    ] {
        let error = dlock_runtime::connect(url).await.expect_err(url).to_string();
        assert!(error.contains(part), "{url}: {error}");
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn a_file_without_a_column_is_refused_when_it_is_opened() {
    let (_folder, url) = file();
    let create = format!("{url}?mode=rwc");
    let mut older = SqliteConnection::connect(&create).await.expect("a file");
    // The schema from before the column `claimant` existed.
    let schema = "CREATE TABLE dlock_locks (key TEXT PRIMARY KEY, owner BLOB NOT NULL, token INTEGER NOT NULL,
            expires_us INTEGER NOT NULL, lock_group TEXT, group_until_us INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
        CREATE TABLE dlock_token (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
        INSERT INTO dlock_token (id, last) VALUES (1, 0);
        CREATE TRIGGER dlock_token_of_insert AFTER INSERT ON dlock_locks BEGIN
            UPDATE dlock_token SET last = NEW.token WHERE last < NEW.token; END;
        CREATE TRIGGER dlock_token_of_update AFTER UPDATE OF token ON dlock_locks BEGIN
            UPDATE dlock_token SET last = NEW.token WHERE last < NEW.token; END";
    sqlx::raw_sql(schema).execute(&mut older).await.expect("the schema");
    let refused = Sqlite::connect(&url).await.expect_err("it has no column `claimant`");
    let message = refused.to_string();
    assert!(
        message.contains("claimant") && message.contains("another version of dlock"),
        "{message}"
    );
    assert!(!refused.is_transient());
}

#[tokio::test]
async fn a_file_of_a_later_version_is_rejected_and_left_unchanged() {
    let (_folder, url) = file();
    drop(registry(&url).await);
    let mut later = SqliteConnection::connect(&url).await.expect("a file");
    // A later version that no longer has this trigger.
    let changes = "UPDATE dlock_version SET version = 2; DROP TRIGGER dlock_token_of_update";
    later.execute(changes).await.expect("a row");
    let contents = "SELECT coalesce(group_concat(name || sql, ';'), '') FROM sqlite_schema";
    let before: String = sqlx::query_scalar(contents).fetch_one(&mut later).await.expect("a row");
    let refused = Sqlite::connect(&url).await.expect_err("its version is 2");
    let message = refused.to_string();
    assert!(message.contains("version 2") && message.contains("update"), "{message}");
    assert!(!refused.is_transient());
    let version = sqlx::query_scalar::<_, i64>("SELECT version FROM dlock_version");
    assert_eq!(version.fetch_one(&mut later).await.expect("a row"), 2);
    let after: String = sqlx::query_scalar(contents).fetch_one(&mut later).await.expect("a row");
    assert_eq!(before, after);
}
