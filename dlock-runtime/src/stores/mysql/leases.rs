//! How MySQL answers the statements about leases.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlQueryResult, MySqlRow};
use sqlx::{MySql, Row};

use super::statements::Statements;
use super::sweep;
use crate::backend::{Claim, Release};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, RowOwner};
use crate::stores::shared::sql::store::{Dialect as _, Message, Tries};
use crate::stores::shared::sql::{Reply, read, read_micros};
use crate::stores::shared::sql_leases::connections::{Lane, LeaseStore};
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::rows::Rows;
use crate::stores::shared::sql_leases::together::{Found, How};
use crate::stores::shared::sql_leases::{LeaseDialect, LeaseStatements as _};

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

    async fn acquire_each(
        &self,
        store: &LeaseStore<MySql>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<Found>, sqlx::Error> {
        if let [claim] = claims {
            let reply = alone(store, Lane::Acquires, &self.acquire(claim), how).await?;
            if !Self::is_changed(&reply) {
                return Err(self.has_no_first_row());
            }
            let token = insert_id(&reply);
            return Ok(vec![if token > 0 { Found::Free(token) } else { Found::Unclear }]);
        }
        let reply = together(store, Lane::Acquires, &self.acquire_several(claims), how).await?;
        let mut rows = Vec::with_capacity(claims.len());
        for row in &reply.rows[2] {
            let key: Vec<u8> = row.try_get(0)?;
            let owner: Option<String> = row.try_get(1)?;
            let (token, left, is_shared) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            rows.push((key, owner, token, left, is_shared));
        }
        let found = claims.iter().map(|claim| {
            let key = claim.key.as_str().as_bytes();
            let row =
                rows.binary_search_by(|row| row.0.as_slice().cmp(key)).ok().map(|at| &rows[at]);
            let Some((_, owner, token, left, is_shared)) = row else { return Found::Unclear };
            let (token, left, is_shared): (u64, i64, i64) = (*token, *left, *is_shared);
            let is_ours = owner.as_ref().is_some_and(|owner| *owner == claim.owner.to_string());
            match u64::try_from(left) {
                _ if is_shared != 0 => Found::Unclear,
                Ok(1..) if is_ours => Found::Free(token),
                Ok(left @ 1..) => Found::Held(Duration::from_micros(left)),
                _ => Found::Unclear,
            }
        });
        Ok(found.collect())
    }

    async fn renew_each(
        &self,
        store: &LeaseStore<MySql>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<bool>, sqlx::Error> {
        if let [claim] = claims {
            let reply = alone(store, Lane::Holds, &self.renew(claim), how).await?;
            return Ok(vec![Self::is_changed(&reply)]);
        }
        let reply = together(store, Lane::Holds, &self.renew_several(claims), how).await?;
        owned(&reply.rows[2], claims)
    }

    async fn release_each(
        &self,
        store: &LeaseStore<MySql>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<bool>, sqlx::Error> {
        if let [claim] = claims {
            let statement = self.release(claim, Release::default());
            let reply = alone(store, Lane::Holds, &statement, how).await?;
            return Ok(vec![Self::is_changed(&reply)]);
        }
        let reply = together(store, Lane::Holds, &self.release_several(claims), how).await?;
        owned(&reply.rows[1], claims)
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

impl Statements {
    fn has_no_first_row(&self) -> sqlx::Error {
        let problem = format!(
            "the row without a key is gone from `{}`; run `src/stores/mysql/leases.sql` of dlock-runtime again",
            self.table
        );
        sqlx::Error::Configuration(problem.into())
    }
}

/// Sends a statement.
async fn alone(
    store: &LeaseStore<MySql>,
    lane: Lane,
    statement: &str,
    how: How<'_>,
) -> Result<Reply<MySql>, sqlx::Error> {
    let bounded = MySql::bounded(statement, how.wait.unwrap_or(store.limit()));
    let tries = if how.wait.is_some() { Tries { repeats: 0, ..how.tries } } else { how.tries };
    store.send(lane, Message::Statements(&bounded, 1), tries).await
}

/// Sends a transaction of four statements.
async fn together(
    store: &LeaseStore<MySql>,
    lane: Lane,
    [one, two]: &[String; 2],
    how: How<'_>,
) -> Result<Reply<MySql>, sqlx::Error> {
    let limit = how.wait.unwrap_or(store.limit());
    let [one, two] = [one, two].map(|statement| MySql::bounded(statement, limit));
    let transaction = format!("BEGIN; {one}; {two}; COMMIT");
    store.send(lane, Message::Transaction(&transaction, 4), how.tries).await
}

/// Which of the claims are the owners in these rows of keys and owners?
fn owned(rows: &[MySqlRow], claims: &[&Claim]) -> Result<Vec<bool>, sqlx::Error> {
    let mut owners = HashSet::with_capacity(rows.len());
    for row in rows {
        owners.insert((row.try_get::<Vec<u8>, _>(0)?, row.try_get::<String, _>(1)?));
    }
    let is_owner = |claim: &&Claim| {
        owners.contains(&(claim.key.as_str().as_bytes().to_vec(), claim.owner.to_string()))
    };
    Ok(claims.iter().map(is_owner).collect())
}
