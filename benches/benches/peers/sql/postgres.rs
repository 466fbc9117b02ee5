//! The limit on PostgreSQL, and sqlx's advisory lock.

use dlock_benches::contender::{Contender, Role, Turns, in_tasks};
use dlock_runtime::OwnerId;
use sqlx::postgres::{PgAdvisoryLock, PgConnection};
use sqlx::{Connection, Executor};

use super::connections::Connections;
use super::{CONNECTIONS, LIMIT};

/// The advisory lock's name.
pub const ADVISORY: &str = "sqlx PgAdvisoryLock";

const TABLE: &str = "CREATE TABLE bare (
    key text PRIMARY KEY, owner text, token bigint NOT NULL, expires_at timestamptz NOT NULL)";
const ACQUIRE: &str = "INSERT INTO bare VALUES ($1, $2, 1, clock_timestamp() + interval '30 s')
    ON CONFLICT (key) DO UPDATE SET owner = EXCLUDED.owner, token = bare.token + 1, expires_at = EXCLUDED.expires_at
    WHERE bare.expires_at < clock_timestamp() RETURNING token";
const RELEASE: &str =
    "UPDATE bare SET owner = NULL, expires_at = '-infinity' WHERE key = $1 AND owner = $2";

async fn connect(url: &str) -> Connections<PgConnection> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(PgConnection::connect(url).await.expect("the server runs"));
    }
    Connections::new(connections)
}

pub(super) async fn limit(url: &str, tasks: u32) -> Contender {
    let connections = connect(url).await;
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

async fn cycle(connections: &Connections<PgConnection>, key: &str) -> sqlx::Result<()> {
    let owner = OwnerId::random().to_string();
    let acquire = sqlx::query(ACQUIRE).bind(key).bind(&owner);
    acquire.fetch_one(&mut *connections.take().await).await?;
    let release = sqlx::query(RELEASE).bind(key).bind(&owner);
    let released = release.execute(&mut *connections.take().await).await?;
    assert_eq!(released.rows_affected(), 1, "it was held");
    Ok(())
}

/// sqlx's advisory lock. Each lock that is held has a connection to itself.
#[derive(Clone)]
pub struct Advisory(Connections<PgConnection>);

impl Advisory {
    pub async fn connect(url: &str) -> Self {
        Self(connect(url).await)
    }

    /// The loop of one task.
    pub async fn repeat(self, key: String, mut turns: Turns) -> Turns {
        let lock = PgAdvisoryLock::new(key);
        while turns.again() {
            let connection = self.0.take().await;
            let held = lock.acquire(connection).await.expect("the server runs");
            turns.inside();
            held.release_now().await.expect("it was held");
        }
        turns
    }
}

pub(super) async fn advisory(url: &str, tasks: u32) -> Contender {
    let locks = Advisory::connect(url).await;
    let run =
        in_tasks(tasks, move |task, turns| locks.clone().repeat(format!("own:{task}"), turns));
    let remark = "a lock of the session: writes nothing to disk, has no lease and no token, and takes a connection for as long as it is held";
    Contender::new(Role::Peer, ADVISORY, run).remark(remark)
}
