//! The rows of the table: reads, and changes that take effect only if a row is unchanged.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};

use super::{Sqlite, now_us};
use crate::backend::Claim;
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, NewRow, Purpose, RowOwner, RowStore};

const LOOK: &str = "SELECT owner, token, expires_us, lock_group, group_until_us, claimant
     FROM dlock_locks WHERE key = ?1";

impl Sqlite {
    /// Like [`RowStore::look`], but on the reader: does not wait for writes in progress.
    pub(super) async fn glance(&self, key: &LockKey) -> Result<Option<LeaseRow>, BackendError> {
        let now = now_us();
        let row = self.read(sqlx::query(LOOK).bind(key.as_str())).await?;
        row.map(|row| self.lease_row(&row, now)).transpose()
    }

    pub(super) async fn holders(&self, key: &LockKey) -> Result<Vec<u64>, BackendError> {
        Ok(self.glance(key).await?.map(|row| row.holders()).unwrap_or_default())
    }

    pub(super) fn lease_row(&self, row: &SqliteRow, now: i64) -> Result<LeaseRow, BackendError> {
        let parse = || -> Result<LeaseRow, sqlx::Error> {
            let number =
                |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.unsigned_abs());
            Ok(LeaseRow {
                owner: RowOwner::from_blob(row.try_get_unchecked(0)?),
                client_info: ClientInfo::parse(row.try_get(5)?),
                token: number(1)?,
                expires: number(2)?,
                group: row.try_get(3)?,
                group_until: number(4)?,
                now: now.unsigned_abs(),
                // A release runs after any acquire that was abandoned before it.
                given_up: false,
            })
        };
        parse().map_err(|error| self.explain(error))
    }
}

impl RowStore for Sqlite {
    /// Reads on the writer, after any abandoned acquire that is still in progress there.
    async fn look(&self, claim: &Claim, _: Purpose) -> Result<Option<LeaseRow>, BackendError> {
        let now = now_us();
        let row = self.write(sqlx::query(LOOK).bind(claim.key.as_str())).await?;
        row.map(|row| self.lease_row(&row, now)).transpose()
    }

    async fn look_at_all(&self, claims: &[Claim]) -> Result<Vec<Option<LeaseRow>>, BackendError> {
        let mut rows = Vec::with_capacity(claims.len());
        for claim in claims {
            rows.push(self.look(claim, Purpose::Acquire).await?);
        }
        Ok(rows)
    }

    async fn make(&self, key: &LockKey) -> Result<(), BackendError> {
        let query = sqlx::query(
            "INSERT INTO dlock_locks (key, owner, token, expires_us)
             VALUES (?1, x'', (SELECT max(last + 1, ?2) FROM dlock_token), 0) ON CONFLICT DO NOTHING",
        );
        self.write(query.bind(key.as_str()).bind(now_us())).await.map(|_| ())
    }

    async fn exchange(
        &self,
        claim: &Claim,
        old: &LeaseRow,
        new: &NewRow,
        _: Purpose,
    ) -> Result<bool, BackendError> {
        let query = if new.is_idle(old.now) {
            sqlx::query(
                "DELETE FROM dlock_locks WHERE key = ?1 AND owner = ?2 AND token = ?3
                 AND expires_us = ?4 AND lock_group IS ?5 RETURNING 1",
            )
        } else {
            sqlx::query(
                "UPDATE dlock_locks SET owner = ?6, token = ?7, expires_us = ?8,
                    lock_group = ?9, group_until_us = ?10, claimant = ?11
                 WHERE key = ?1 AND owner = ?2 AND token = ?3
                    AND expires_us = ?4 AND lock_group IS ?5 RETURNING 1",
            )
        };
        let query =
            query.bind(claim.key.as_str()).bind(old.owner.to_blob()).bind(old.token.cast_signed());
        let mut query = query.bind(old.expires.cast_signed()).bind(old.group.as_deref());
        if !new.is_idle(old.now) {
            query = query.bind(new.owner.to_blob()).bind(new.token.cast_signed());
            query = query.bind(new.expires.cast_signed()).bind(new.group.as_deref());
            query = query.bind(new.group_until.cast_signed());
            query =
                query.bind(new.client_info.as_ref().map(ClientInfo::to_text).unwrap_or_default());
        }
        Ok(self.write(query).await?.is_some())
    }

    async fn exchange_all(&self, changes: &[Change<'_>]) -> Result<bool, BackendError> {
        let statement = exchange_all(changes.len());
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for Change { claim, old, new } in changes {
            query = query.bind(claim.key.as_str()).bind(old.owner.to_blob());
            query = query.bind(old.token.cast_signed()).bind(old.expires.cast_signed());
            query = query.bind(old.group.as_deref()).bind(new.owner.to_blob());
            query = query.bind(new.token.cast_signed()).bind(new.expires.cast_signed());
            query = query.bind(new.group.as_deref()).bind(new.group_until.cast_signed());
            query =
                query.bind(new.client_info.as_ref().map(ClientInfo::to_text).unwrap_or_default());
        }
        Ok(self.write(query).await?.is_some())
    }
}

/// One row of a change: the key, the old values, the new values.
const CHANGE: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Changes all rows or none. One statement, so that a dropped future cannot leave it half done.
fn exchange_all(rows: usize) -> String {
    let changes = vec![CHANGE; rows].join(", ");
    format!(
        "WITH change (key, old_owner, old_token, old_expires, old_group,
                      owner, token, expires, lock_group, group_until, claimant) AS (VALUES {changes})
         UPDATE dlock_locks SET owner = change.owner, token = change.token,
            expires_us = change.expires, lock_group = change.lock_group,
            group_until_us = change.group_until, claimant = change.claimant
         FROM change WHERE dlock_locks.key = change.key AND {rows} =
            (SELECT count(*) FROM change JOIN dlock_locks AS present ON present.key = change.key
             WHERE present.owner = change.old_owner AND present.token = change.old_token
                AND present.expires_us = change.old_expires
                AND present.lock_group IS change.old_group)
         RETURNING 1"
    )
}
