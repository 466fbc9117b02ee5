//! The accounts, in one SQLite file. No database transaction hides a missing lock.

use std::time::Duration;

use anyhow::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

/// The initial balance of each account.
const OPENING: i64 = 1_000;

pub(crate) struct Bank {
    file: String,
    pool: SqlitePool,
}

impl Bank {
    /// Creates a bank with this many accounts.
    pub(crate) async fn found(file: &str, accounts: usize) -> Result<Self> {
        let bank = Self::open(file).await?;
        let table = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)";
        sqlx::query(table).execute(&bank.pool).await?;
        for id in 0..accounts {
            let insert = sqlx::query("INSERT INTO accounts VALUES (?, ?)");
            insert.bind(i64::try_from(id)?).bind(OPENING).execute(&bank.pool).await?;
        }
        Ok(bank)
    }

    pub(crate) async fn open(file: &str) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        Ok(Self { file: file.to_owned(), pool })
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) async fn total(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT SUM(balance) FROM accounts").fetch_one(&self.pool).await?)
    }

    pub(crate) async fn balance(&self, id: u32) -> Result<i64> {
        let select = sqlx::query_scalar("SELECT balance FROM accounts WHERE id = ?");
        Ok(select.bind(id).fetch_one(&self.pool).await?)
    }

    pub(crate) async fn set_balance(&self, id: u32, balance: i64) -> Result<()> {
        let update = sqlx::query("UPDATE accounts SET balance = ? WHERE id = ?");
        update.bind(balance).bind(id).execute(&self.pool).await?;
        Ok(())
    }
}
