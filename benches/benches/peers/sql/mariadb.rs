//! The limit on MariaDB.

use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_runtime::OwnerId;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor, Row};

use super::connections::Connections;
use super::{CONNECTIONS, LIMIT};

const TABLE: &str = "CREATE TABLE bare (
    lock_key varchar(255) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    owner char(32) CHARACTER SET ascii COLLATE ascii_bin,
    token bigint NOT NULL, expires_at datetime(6) NOT NULL)";
/// Assignments happen from left to right, so the end of the lease comes last.
const ACQUIRE: &str = "INSERT INTO bare VALUES (?, ?, 1, NOW(6) + INTERVAL 30 SECOND)
    ON DUPLICATE KEY UPDATE owner = IF(expires_at < NOW(6), VALUES(owner), owner),
    token = IF(expires_at < NOW(6), token + 1, token),
    expires_at = IF(expires_at < NOW(6), VALUES(expires_at), expires_at) RETURNING owner, token";
const RELEASE: &str =
    "UPDATE bare SET owner = NULL, expires_at = '1970-01-02' WHERE lock_key = ? AND owner = ?";

pub(super) async fn limit(url: &str, tasks: u32) -> Contender {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(MySqlConnection::connect(url).await.expect("the server runs"));
    }
    let connections = Connections::new(connections);
    connections.take().await.execute(TABLE).await.expect("a table");
    let run = in_tasks(tasks, move |task, mut turns| {
        let connections = connections.clone();
        async move {
            let key = format!("bare:{task}");
            while turns.again() {
                cycle(&connections, &key).await.expect("the server runs");
            }
            turns
        }
    });
    Contender::new(Role::Limit, LIMIT, run)
}

async fn cycle(connections: &Connections<MySqlConnection>, key: &str) -> sqlx::Result<()> {
    let owner = OwnerId::random().to_string();
    let acquire = sqlx::query(ACQUIRE).bind(key).bind(&owner);
    let row = acquire.fetch_one(&mut *connections.take().await).await?;
    assert_eq!(row.try_get::<String, _>(0)?, owner, "nobody else wants it");
    let release = sqlx::query(RELEASE).bind(key).bind(&owner);
    let released = release.execute(&mut *connections.take().await).await?;
    assert_eq!(released.rows_affected(), 1, "it was held");
    Ok(())
}
