//! How MySQL answers the statements about leases.

use std::time::Duration;

use sqlx::MySql;
use sqlx::mysql::{MySqlConnectOptions, MySqlQueryResult, MySqlRow};

use super::statements::Statements;
use super::sweep;
use crate::backend::{Attempt, Claim, Release, validity_of};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, Purpose, RowOwner, RowStore as _};
use crate::stores::shared::sql::{Reply, read, read_micros};
use crate::stores::shared::sql_leases::LeaseDialect;
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::rows::Rows;
use crate::token::FencingToken;

/// How many rows one statement changes at most: MySQL joins 61 tables.
const MOST_JOINED: usize = 50;

impl LeaseDialect for Statements {
    type Database = MySql;

    const PARAMETERS: &[&str] = &[
        "sslmode",
        "ssl-mode",
        "sslca",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "charset",
        "collation",
        "statement-cache-capacity",
        "socket",
        "timezone",
        "time-zone",
    ];

    const FILE: &'static str = "src/stores/mysql/leases.sql";

    const SCHEMA: &'static str = include_str!("leases.sql");

    const COLUMNS: &'static str = "lock_key, owner, token, expires_at, gone, gone_before, gone_since, lock_group, group_until, claimant";

    fn new(table: String) -> Self {
        Self { table }
    }

    fn table(&self) -> &str {
        &self.table
    }

    fn address(options: &MySqlConnectOptions) -> String {
        format!("{}:{}", options.get_host(), options.get_port())
    }

    fn is_changed(reply: &Reply<MySql>) -> bool {
        reply.last.as_ref().is_some_and(|result| result.rows_affected() > 0)
    }

    fn is_released(reply: &Reply<MySql>, release: Release) -> bool {
        if release.late_acquire { insert_id(reply) == 1 } else { Self::is_changed(reply) }
    }

    fn looked_at(row: &MySqlRow) -> Result<LeaseRow, BackendError> {
        Ok(LeaseRow {
            owner: RowOwner::read(read(row, 0)?),
            client_info: ClientInfo::parse(read(row, 6)?),
            token: read(row, 1)?,
            expires: read_micros(row, 2)?,
            group: read(row, 3)?,
            group_until: read_micros(row, 4)?,
            now: read_micros(row, 5)?,
            given_up: read::<i64, _>(row, 7)? != 0,
        })
    }

    fn listed_key(row: &MySqlRow) -> Result<LockKey, BackendError> {
        Ok(String::from_utf8_lossy(read(row, 8)?).into_owned().into())
    }

    async fn acquire_alone(
        rows: &Rows<'_, Self>,
        claim: &Claim,
    ) -> Result<Option<Attempt>, BackendError> {
        let reply = rows.store().run_acquire(&rows.doubt, &rows.sql().acquire(claim)).await?;
        if !Self::is_changed(&reply) {
            // No row was inserted or found: the row without a key is missing.
            return Err(BackendError::permanent(format!(
                "mysql: the row without a key is gone from `{}`; run `src/stores/mysql/leases.sql` of dlock-runtime again",
                rows.sql().table
            )));
        }
        if let token @ 1.. = insert_id(&reply) {
            return Ok(Some(Attempt::granted(FencingToken::new(token), validity_of(claim.ttl))));
        }
        Ok(match rows.look(claim, Purpose::Acquire).await? {
            Some(row) if row.has_group() => None,
            row => Some(Attempt::busy(Some(row.map_or(Duration::ZERO, |row| row.left())))),
        })
    }

    async fn exchange_all(
        rows: &Rows<'_, Self>,
        changes: &[Change<'_>],
    ) -> Result<bool, BackendError> {
        if changes.len() > MOST_JOINED {
            return rows.store().run_in_one_message(&rows.sql().exchange_one_by_one(changes)).await;
        }
        let statement = rows.sql().exchange_all(changes);
        Ok(Self::is_changed(&rows.store().run_acquire(&rows.doubt, &statement).await?))
    }

    async fn sweep(leases: &Leases<Self>) -> Result<(), BackendError> {
        sweep::delete_idle_rows(leases).await?;
        // There is no such table if nobody locks rows.
        let _ = crate::transaction::delete_idle_rows(leases.store.pool()).await;
        Ok(())
    }
}

/// What the statement answered through its last insert id.
fn insert_id(reply: &Reply<MySql>) -> u64 {
    reply.last.as_ref().map_or(0, MySqlQueryResult::last_insert_id)
}
