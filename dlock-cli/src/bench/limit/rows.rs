//! Plain statements to a database: each updates one row by its primary key, and commits. The rows are in dlock's own table,
//! since a role may be allowed to do nothing else. They look like locks that nobody holds any more but that are kept for ten
//! seconds, so that no sweep deletes them meanwhile.

use std::sync::Arc;

use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;

use super::{Requests, Unmeasured};

/// How many connections are used at most, as by dlock.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const CONNECTIONS: usize = 10;

macro_rules! rows {
    (
        $(#[$enabled:meta])*
        $name:ident over $connection:ident, $connections:expr, by $options:path, $what:literal;
        begin $begin:literal;
        insert $insert:literal; read $read:literal; update $update:literal; delete $($delete:literal),+
    ) => {
        $(#[$enabled])*
        #[derive(Clone)]
        pub struct $name {
            connections: Arc<[Mutex<sqlx::$connection>]>,
            prefix: String,
        }

        $(#[$enabled])*
        impl $name {
            pub async fn connect(url: &str, prefix: &str, tasks: usize) -> Result<Self, Unmeasured> {
                let mut connections = Vec::new();
                for _ in 0..tasks.min($connections) {
                    connections.push(Mutex::new(Self::open(url).await?));
                }
                let connections: Arc<[_]> = connections.into();
                let rows = Self { connections, prefix: prefix.to_owned() };
                for task in 0..tasks {
                    let mut connection = rows.connection(task).await;
                    sqlx::query($insert).bind(rows.key(task)).execute(&mut *connection).await?;
                }
                Ok(rows)
            }

            pub async fn clean_up(url: &str, prefix: &str) -> Result<(), Unmeasured> {
                let mut connection = Self::open(url).await?;
                for delete in [$($delete),+] {
                    sqlx::query(delete).bind(format!("{prefix}%")).execute(&mut connection).await?;
                }
                Ok(connection.close().await?)
            }

            async fn open(url: &str) -> Result<sqlx::$connection, Unmeasured> {
                let options: $options = url.parse()?;
                let mut connection = options.disable_statement_logging().connect().await?;
                sqlx::query($begin).execute(&mut connection).await?;
                Ok(connection)
            }

            async fn connection(&self, task: usize) -> tokio::sync::MutexGuard<'_, sqlx::$connection> {
                self.connections[task % self.connections.len()].lock().await
            }

            fn key(&self, task: usize) -> String {
                format!("{}limit:{task}", self.prefix)
            }
        }

        $(#[$enabled])*
        impl Requests for $name {
            const WHAT: &'static str = $what;

            async fn read(&self, task: usize) -> Result<(), Unmeasured> {
                let mut connection = self.connection(task).await;
                sqlx::query($read).bind(self.key(task)).fetch_optional(&mut *connection).await?;
                Ok(())
            }

            async fn write_twice(&self, task: usize) -> Result<(), Unmeasured> {
                for _ in 0..2 {
                    let mut connection = self.connection(task).await;
                    sqlx::query($update).bind(self.key(task)).execute(&mut *connection).await?;
                }
                Ok(())
            }
        }
    };
}

rows! {
    #[cfg(feature = "sqlite")]
    Sqlite over SqliteConnection, 1, by sqlx::sqlite::SqliteConnectOptions,
    "two updates by primary key, each committed, over one connection; a read is one row by primary key";
    begin "PRAGMA synchronous = NORMAL";
    insert "INSERT INTO dlock_locks (key, owner, token, expires_us) VALUES ($1, X'', 0, (unixepoch() + 10) * 1000000)";
    read "SELECT token FROM dlock_locks WHERE key = $1";
    update "UPDATE dlock_locks SET expires_us = (unixepoch('subsec') + 10) * 1000000 WHERE key = $1";
    delete "DELETE FROM dlock_locks WHERE key LIKE $1"
}

rows! {
    #[cfg(feature = "postgres")]
    Postgres over PgConnection, CONNECTIONS, by sqlx::postgres::PgConnectOptions,
    "two updates by primary key, each committed, over up to ten connections; a read is one row by primary key";
    begin "SELECT 1";
    insert "INSERT INTO dlock_leases (lock_key, token, expires_at) VALUES ($1, 0, clock_timestamp() + interval '10 s')";
    read "SELECT token FROM dlock_leases WHERE lock_key = $1";
    update "UPDATE dlock_leases SET expires_at = clock_timestamp() + interval '10 s' WHERE lock_key = $1";
    delete "DELETE FROM dlock_leases WHERE lock_key LIKE $1"
}

rows! {
    #[cfg(feature = "mysql")]
    MySql over MySqlConnection, CONNECTIONS, by sqlx::mysql::MySqlConnectOptions,
    "two updates by primary key, each committed, over up to ten connections; a read is one row by primary key";
    begin "SELECT 1";
    insert "INSERT INTO dlock_leases (lock_key, token, expires_at, gone, gone_before, gone_since, group_until) \
            VALUES (?, 0, UTC_TIMESTAMP(6) + INTERVAL 10 SECOND, '', '', '1970-01-01', '1970-01-01')";
    read "SELECT token FROM dlock_leases WHERE lock_key = ?";
    update "UPDATE dlock_leases SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 10 SECOND WHERE lock_key = ?";
    delete "DELETE FROM dlock_leases WHERE lock_key LIKE ?"
}
