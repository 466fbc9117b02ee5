//! How MySQL answers the statements about leases.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlQueryResult, MySqlRow};
use sqlx::{MySql, Row};

use super::dialect::bounded;
use super::idle_rows::delete_idle_rows_over;
use super::statements::Statements;
use super::sweep;
use crate::backend::{Claim, Release};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, RowOwner};
use crate::stores::shared::sql::store::{Message, Store, Tries};
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

    // MySQL limits how long a statement waits for each row, and not for all of them. `told` reads 64 bits.
    const MOST_AT_ONCE: usize = 32;

    async fn open(table: String, _: &Store<MySql>) -> Self {
        Self { table }
    }

    fn table(&self) -> &str {
        &self.table
    }

    fn address(options: &MySqlConnectOptions) -> String {
        format!("{}:{}", options.get_host(), options.get_port())
    }

    fn is_changed(reply: &Reply<MySql>) -> bool {
        reply.last().is_some_and(|result| result.rows_affected() > 0)
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
    ) -> Result<Vec<Option<Found>>, sqlx::Error> {
        if let [claim] = claims {
            let reply = alone(store, Lane::Acquires, &self.acquire(claim), how).await?;
            if !Self::is_changed(&reply) {
                return Err(self.has_no_first_row());
            }
            let token = insert_id(&reply);
            return Ok(vec![Some(if token > 0 { Found::Free(token) } else { Found::Unclear })]);
        }
        let reply = in_turn(store, &self.acquire_several(claims), how).await?;
        // When the first statement began; zero if it had nothing to do.
        let began = reply.results.first().map_or(0, MySqlQueryResult::last_insert_id);
        let rows = reply.rows[1].iter().map(Acquired::read).collect::<Result<Vec<_>, _>>()?;
        let found = claims.iter().map(|claim| {
            let key = claim.key.as_str().as_bytes();
            let at = rows.binary_search_by(|row| row.key.as_slice().cmp(key)).ok()?;
            rows[at].found(claim, began)
        });
        Ok(found.collect())
    }

    async fn renew_each(
        &self,
        store: &LeaseStore<MySql>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<Option<bool>>, sqlx::Error> {
        if let [claim] = claims {
            let reply = alone(store, Lane::Holds, &self.renew(claim), how).await?;
            return Ok(vec![Some(Self::is_changed(&reply))]);
        }
        let reply = marked(store, &self.renew_several(claims), how).await?;
        Ok(match told(&reply, claims.len()) {
            Some(renewed) => renewed.into_iter().map(Some).collect(),
            None => claims.iter().map(|_| None).collect(),
        })
    }

    async fn release_each(
        &self,
        store: &LeaseStore<MySql>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<Option<bool>>, sqlx::Error> {
        if let [claim] = claims {
            let statement = self.release(claim, Release::default());
            let reply = alone(store, Lane::Holds, &statement, how).await?;
            return Ok(vec![Some(Self::is_changed(&reply))]);
        }
        let reply = marked(store, &self.release_several(claims), how).await?;
        // A second release would find nothing.
        let unclear = || sqlx::Error::Protocol("it is not clear what was released".to_owned());
        let released = told(&reply, claims.len()).ok_or_else(unclear)?;
        Ok(released.into_iter().map(Some).collect())
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
        let _ = delete_idle_rows_over(leases.store.plain()).await;
        Ok(())
    }
}

/// What the statement answered through its last insert id.
fn insert_id(reply: &Reply<MySql>) -> u64 {
    reply.last().map_or(0, MySqlQueryResult::last_insert_id)
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

/// A row after an acquire of several.
struct Acquired {
    key: Vec<u8>,
    owner: Option<String>,
    token: u64,
    /// In microseconds since 1970.
    expires: u64,
    /// In microseconds.
    left: i64,
    /// Does more than the lease decide?
    is_shared: bool,
}

impl Acquired {
    fn read(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            key: row.try_get(0)?,
            owner: row.try_get(1)?,
            token: row.try_get(2)?,
            expires: u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or(0),
            left: row.try_get(4)?,
            is_shared: row.try_get::<i64, _>(5)? != 0,
        })
    }

    /// What the acquire that began at that time found. Only a lease that is as long as this acquire makes it is granted:
    /// a copy of it that was sent earlier may have been executed since, with a lease that ends sooner.
    fn found(&self, claim: &Claim, began: u64) -> Option<Found> {
        if began == 0 {
            return None;
        }
        let ttl = u64::try_from(claim.ttl.as_micros()).unwrap_or(u64::MAX);
        let is_ours = self.owner.as_ref().is_some_and(|owner| *owner == claim.owner.to_string());
        Some(match u64::try_from(self.left) {
            _ if self.is_shared => Found::Unclear,
            Ok(1..) if is_ours && self.expires >= began.saturating_add(ttl) => {
                Found::Free(self.token)
            }
            Ok(left @ 1..) if !is_ours => Found::Held(Duration::from_micros(left)),
            _ => Found::Unclear,
        })
    }
}

/// Sends a statement.
async fn alone(
    store: &LeaseStore<MySql>,
    lane: Lane,
    statement: &str,
    how: How<'_>,
) -> Result<Reply<MySql>, sqlx::Error> {
    let bounded = how.bounded(store, statement);
    let tries = if how.wait.is_some() { Tries { repeats: 0, ..how.tries } } else { how.tries };
    store.send(lane, Message::Statements(&bounded, 1), tries).await
}

/// Sends two statements of an acquire, each a transaction of its own: whichever of them fails, no row stays locked.
async fn in_turn(
    store: &LeaseStore<MySql>,
    [one, two]: &[String; 2],
    how: How<'_>,
) -> Result<Reply<MySql>, sqlx::Error> {
    let message = format!("{}; {}", how.bounded(store, one), how.bounded(store, two));
    store.send(Lane::Acquires, Message::Brief(&message, 2), how.tries).await
}

/// Sends a statement that [marks](super::plain) what it changes.
async fn marked(
    store: &LeaseStore<MySql>,
    statement: &str,
    how: How<'_>,
) -> Result<Reply<MySql>, sqlx::Error> {
    let message = format!("DO LAST_INSERT_ID(0); {}", how.bounded(store, statement));
    store.send(Lane::Holds, Message::Brief(&message, 2), how.tries).await
}

/// Which of the claims such a statement changed. `None` if its marks contradict the number of rows.
fn told(reply: &Reply<MySql>, claims: usize) -> Option<Vec<bool>> {
    let result = reply.last()?;
    marks(result.rows_affected(), result.last_insert_id(), claims)
}

fn marks(rows: u64, bits: u64, claims: usize) -> Option<Vec<bool>> {
    if usize::try_from(rows).is_ok_and(|rows| rows == claims) {
        return Some(vec![true; claims]);
    }
    let is_certain = u64::from(bits.count_ones()) == rows;
    is_certain.then(|| (0..claims).map(|at| bits >> at & 1 == 1).collect())
}

impl How<'_> {
    /// All that follows a wait that is limited is limited only by the request.
    fn bounded(&self, store: &LeaseStore<MySql>, statement: &str) -> String {
        let limit = store.limit();
        bounded(statement, limit, self.wait.unwrap_or(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_contradict_the_number_of_rows_say_nothing() {
        assert_eq!(marks(2, 0b101, 3), Some(vec![true, false, true]));
        assert_eq!(marks(0, 0, 2), Some(vec![false, false]));
        assert_eq!(marks(2, 0b100, 3), None);
        assert_eq!(marks(2, 0, 2), Some(vec![true, true]));
    }

    #[test]
    fn only_a_lease_of_the_full_length_is_granted() {
        let claim = Claim::new("k".into(), Duration::from_micros(100));
        let owner = Some(claim.owner.to_string());
        let row = |expires, is_shared| {
            let (key, owner) = (b"k".to_vec(), owner.clone());
            Acquired { key, owner, token: 7, expires, left: 50, is_shared }
        };
        assert_eq!(row(1_100, false).found(&claim, 1_000), Some(Found::Free(7)));
        assert_eq!(row(1_099, false).found(&claim, 1_000), Some(Found::Unclear));
        assert_eq!(row(1_100, true).found(&claim, 1_000), Some(Found::Unclear));
        assert_eq!(row(1_100, false).found(&claim, 0), None);
        let other = Claim::new("k".into(), Duration::from_micros(100));
        let held = Some(Found::Held(Duration::from_micros(50)));
        assert_eq!(row(1_100, false).found(&other, 1_000), held);
    }
}
