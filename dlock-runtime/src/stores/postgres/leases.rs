//! How PostgreSQL answers the statements about leases.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Postgres, Row};

use super::dialect::{read_key, stored};
use super::line::Line;
use super::statements::{PIECE, Statements};
use crate::backend::{Claim, Release};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, RowOwner};
use crate::stores::shared::sql::prepared::Prepared;
use crate::stores::shared::sql::store::{Dialect as _, Store};
use crate::stores::shared::sql::{Reply, is_unsent, read, read_micros};
use crate::stores::shared::sql_leases::LeaseDialect;
use crate::stores::shared::sql_leases::connections::{Lane, LeaseStore};
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::rows::Rows;
use crate::stores::shared::sql_leases::together::{Found, How};
use crate::stores::shared::wakeups::Topics;

impl LeaseDialect for Statements {
    type Database = Postgres;

    const PARAMETERS: &[&str] = &[
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        "options[…]",
    ];

    const FILE: &'static str = "src/stores/postgres/leases.sql";

    const SCHEMA: &'static str = include_str!("leases.sql");

    const COLUMNS: &'static str = "lock_key, owner, token, expires_at, wanted, released, gone, gone_before, gone_since, \
        lock_group, group_until, claimant";

    const MOST_AT_ONCE: usize = 128;

    async fn open(table: String, store: &Store<Postgres>) -> Self {
        let topics = Arc::<Topics>::default();
        let line = Line::open(&table, store, Arc::clone(&topics)).await;
        Self::of(table, topics, line)
    }

    async fn leave(&self, store: &LeaseStore<Postgres>, claim: &Claim) -> bool {
        let Some(line) = self.line.as_ref().filter(|line| line.may_have(&claim.owner)) else {
            return false;
        };
        line.run(store, Lane::Holds, &line.sql.leave(&claim.owner)).await;
        true
    }

    fn forget(&self, claim: &Claim) {
        if let Some(line) = &self.line {
            line.left(&claim.owner);
        }
    }

    fn table(&self) -> &str {
        &self.table
    }

    fn address(options: &PgConnectOptions) -> String {
        format!("{}:{}", options.get_host(), options.get_port())
    }

    fn is_changed(reply: &Reply<Postgres>) -> bool {
        reply.row().is_some()
    }

    fn is_released(reply: &Reply<Postgres>, _: Release) -> bool {
        reply.row().is_some()
    }

    fn looked_at(row: &PgRow) -> Result<LeaseRow, BackendError> {
        Ok(LeaseRow {
            owner: RowOwner::read(read(row, 0)?),
            client_info: ClientInfo::parse(read(row, 6)?),
            token: read_micros(row, 1)?,
            expires: read_micros(row, 2)?,
            group: read(row, 3)?,
            group_until: read_micros(row, 4)?,
            now: read_micros(row, 5)?,
            given_up: read(row, 7)?,
        })
    }

    fn listed_key(row: &PgRow) -> Result<LockKey, BackendError> {
        Ok(read_key(read(row, 8)?))
    }

    fn prepared(&self) -> Arc<[Prepared]> {
        self.plain.all()
    }

    async fn acquire_each(
        &self,
        store: &LeaseStore<Postgres>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<Option<Found>>, sqlx::Error> {
        if let [claim] = claims
            && let Some(line) = self.line_for(claim)
            && let Some(found) = self.stand_in_line(line, store, claim, how).await?
        {
            return Ok(vec![Some(found)]);
        }
        // A key for which others of this process wait is likely to be held by another process.
        if let [claim] = claims
            && claim.more_tokens() == 0
            && self.recent.has(&claim.key)
        {
            let reply = how.send(store, Lane::Acquires, &self.plain.acquire_again(claim)).await?;
            if let Some(row) = reply.row() {
                self.recent.note(&claim.key);
                return Ok(vec![Some(Found::Free(row.try_get::<i64, _>(1)?.unsigned_abs()))]);
            }
            self.recent.forget(&claim.key);
        }
        let reply = how.send(store, Lane::Acquires, &self.plain.acquire(claims)).await?;
        let mut found = HashMap::with_capacity(claims.len());
        for row in reply.rows.iter().flatten() {
            let owner: &str = row.try_get(0)?;
            let is = match (row.try_get::<Option<i64>, _>(1)?, row.try_get::<Option<i64>, _>(2)?) {
                (Some(token), _) => Found::Free(token.unsigned_abs()),
                (None, Some(left @ 0..)) => Found::Held(micros(left)),
                _ => Found::Unclear,
            };
            found.insert(owner, is);
        }
        let of = |claim: &&Claim| {
            let is = found.get(&*claim.owner.to_string()).copied().unwrap_or(Found::Unclear);
            if let Found::Free(_) = is {
                self.recent.note(&claim.key);
            }
            Some(is)
        };
        let mut found: Vec<_> = claims.iter().map(of).collect();
        self.keep_places(store, claims, &mut found).await;
        Ok(found)
    }

    async fn renew_each(
        &self,
        store: &LeaseStore<Postgres>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<Option<bool>>, sqlx::Error> {
        let reply = how.send(store, Lane::Holds, &self.plain.renew(claims)).await?;
        let renewed = texts(&reply)?;
        Ok(claims.iter().map(|claim| Some(renewed.contains(&*claim.owner.to_string()))).collect())
    }

    async fn release_each(
        &self,
        store: &LeaseStore<Postgres>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> Result<Vec<Option<bool>>, sqlx::Error> {
        if let [claim] = claims {
            return Ok(vec![Some(self.release_one(store, claim, how).await?)]);
        }
        let reply = how.send(store, Lane::Holds, &self.plain.release(claims)).await?;
        let released = released(&reply)?;
        // Where there is a line, one that was not released may have somebody in line.
        let other = if self.line.is_some() { None } else { Some(false) };
        let of = |claim: &&Claim| {
            if released.contains(&*stored(&claim.key)) { Some(true) } else { other }
        };
        Ok(claims.iter().map(of).collect())
    }

    async fn exchange_all(
        rows: &Rows<'_, Self>,
        changes: &[Change<'_>],
    ) -> Result<bool, BackendError> {
        let statement = rows.sql().exchange_all(changes);
        let reply = rows.store().run_acquire(&rows.doubt, &statement).await?;
        Ok(Self::is_changed(&reply))
    }

    async fn sweep(leases: &Leases<Self>) -> Result<(), BackendError> {
        let Leases { store, sql, .. } = leases;
        loop {
            let reply = store.run(Lane::Acquires, &sql.delete_idle()).await?;
            let deleted = reply.row().map(|row| read::<i64, _>(row, 0)).transpose()?;
            if deleted.is_none_or(|deleted| deleted < PIECE) {
                break;
            }
        }
        store.run(Lane::Acquires, &sql.remember_idle()).await?;
        if let Some(line) = &sql.line {
            line.run(store, Lane::Acquires, &line.sql.sweep()).await;
        }
        Ok(())
    }
}

impl Statements {
    fn line_for(&self, claim: &Claim) -> Option<&Line> {
        self.line.as_deref().filter(|line| line.is_for(claim))
    }

    /// Acquires the key or stands in line. `None`: the role may not use the line.
    async fn stand_in_line(
        &self,
        line: &Line,
        store: &LeaseStore<Postgres>,
        claim: &Claim,
        how: How<'_>,
    ) -> Result<Option<Found>, sqlx::Error> {
        // One that is in line was probably notified.
        if line.may_have(&claim.owner) {
            let call = self.plain.acquire_reserved(claim);
            let reply = line.allowed(how.send(store, Lane::Acquires, &call).await)?;
            if let Some(row) = reply.as_ref().and_then(Reply::row) {
                self.recent.note(&claim.key);
                line.left(&claim.owner);
                return Ok(Some(Found::Free(row.try_get::<i64, _>(0)?.unsigned_abs())));
            }
        }
        // Before it is sent: what becomes of it may remain unknown.
        let is_new = line.joins(claim);
        let call = self.plain.stand_in_line(claim, &line.channel);
        let answer = line.allowed(how.send(store, Lane::Acquires, &call).await);
        let found = answer.and_then(|reply| reply.map(|reply| in_line(&reply)).transpose());
        let is_out = match &found {
            Ok(found) => !matches!(found, Some(Found::InLine(_))),
            Err(error) => is_unsent(error) || Postgres::is_rolled_back(error),
        };
        if is_out && (is_new || matches!(found, Ok(Some(Found::Free(_))))) {
            line.left(&claim.owner);
        }
        line.note_answer(&claim.key, matches!(found, Ok(Some(Found::InLine(_)))));
        if let Ok(Some(Found::Free(_))) = found {
            self.recent.note(&claim.key);
        }
        found
    }

    /// Of several claims that found their keys held, those that are in line keep their places. The others that belong in
    /// line ask again, alone.
    async fn keep_places(
        &self,
        store: &LeaseStore<Postgres>,
        claims: &[&Claim],
        found: &mut [Option<Found>],
    ) {
        let Some(line) = self.line.as_deref() else { return };
        let waits = |(claim, found): &(&&Claim, &mut Option<Found>)| {
            matches!(found, Some(Found::Held(_))) && line.is_for(claim)
        };
        let mut waiting: Vec<_> = claims.iter().zip(found).filter(waits).collect();
        if waiting.is_empty() || claims.len() == 1 {
            return;
        }
        let asked: Vec<_> = waiting.iter().map(|(claim, _)| **claim).collect();
        let reply = line.run(store, Lane::Acquires, &line.sql.keep(&asked)).await;
        let kept = reply.as_ref().and_then(|reply| texts(reply).ok()).unwrap_or_default();
        for (claim, found) in &mut waiting {
            line.keeps(claim);
            **found = match **found {
                Some(Found::Held(left)) if kept.contains(&*claim.owner.to_string()) => {
                    Some(Found::InLine(left))
                }
                _ => None,
            };
        }
    }

    async fn release_one(
        &self,
        store: &LeaseStore<Postgres>,
        claim: &Claim,
        how: How<'_>,
    ) -> Result<bool, sqlx::Error> {
        let is_released = |reply: &Reply<Postgres>| Ok(!released(reply)?.is_empty());
        let Some(line) = self.line.as_deref() else {
            return is_released(
                &how.send(store, Lane::Holds, &self.plain.release(&[claim])).await?,
            );
        };
        if !line.is_likely(&claim.key) {
            let reply = how.send(store, Lane::Holds, &self.plain.release(&[claim])).await?;
            if is_released(&reply)? {
                return Ok(true);
            }
        }
        // Somebody may be in line.
        if line.is_usable() {
            let reply = how.send(store, Lane::Holds, &self.plain.hand_over(claim)).await;
            if let Some(reply) = line.allowed(reply)? {
                return is_released(&reply);
            }
        }
        is_released(&how.send(store, Lane::Holds, &self.plain.release_to_all(claim)).await?)
    }
}

/// What an acquire from the line found.
fn in_line(reply: &Reply<Postgres>) -> Result<Found, sqlx::Error> {
    let Some(row) = reply.row() else { return Ok(Found::Unclear) };
    if let Some(token) = row.try_get::<Option<i64>, _>(1)? {
        return Ok(Found::Free(token.unsigned_abs()));
    }
    let is_in_line = row.try_get::<Option<bool>, _>(3)? == Some(true);
    Ok(match row.try_get::<Option<i64>, _>(2)? {
        Some(left @ 0..) if is_in_line => Found::InLine(micros(left)),
        Some(left @ 0..) => Found::Held(micros(left)),
        _ => Found::Unclear,
    })
}

fn micros(left: i64) -> Duration {
    Duration::from_micros(left.unsigned_abs())
}

/// The texts in the first column that are not null.
fn texts(reply: &Reply<Postgres>) -> Result<HashSet<&str>, sqlx::Error> {
    let texts = reply.rows.iter().flatten().map(|row| row.try_get::<Option<&str>, _>(0));
    texts.filter_map(Result::transpose).collect()
}

/// The keys of the leases that were released. A row that was missing is not one of them.
fn released(reply: &Reply<Postgres>) -> Result<HashSet<&str>, sqlx::Error> {
    let mut released = HashSet::with_capacity(reply.rows.len());
    for row in reply.rows.iter().flatten() {
        if row.try_get::<i16, _>(1)? != 0 {
            released.insert(row.try_get(0)?);
        }
    }
    Ok(released)
}
