//! How PostgreSQL answers the statements about leases.

use std::time::Duration;

use sqlx::Postgres;
use sqlx::postgres::{PgConnectOptions, PgRow};

use super::dialect::read_key;
use super::statements::Statements;
use crate::backend::{Attempt, Claim, Release, validity_of};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, RowOwner};
use crate::stores::shared::sql::{Reply, read, read_micros};
use crate::stores::shared::sql_leases::LeaseDialect;
use crate::stores::shared::sql_leases::connections::Lane;
use crate::stores::shared::sql_leases::leases::Leases;
use crate::stores::shared::sql_leases::rows::Rows;
use crate::token::FencingToken;

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

    fn new(table: String) -> Self {
        Self { table }
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

    async fn acquire_alone(
        rows: &Rows<'_, Self>,
        claim: &Claim,
    ) -> Result<Option<Attempt>, BackendError> {
        let reply = rows.store().run_acquire(&rows.doubt, &rows.sql().acquire(claim)).await?;
        let Some(row) = reply.row() else { return Ok(Some(Attempt::busy(None))) };
        if let Some(token) = read::<Option<i64>, _>(row, 0)? {
            let token = FencingToken::new(token.unsigned_abs());
            return Ok(Some(Attempt::granted(token, validity_of(claim.ttl))));
        }
        if read(row, 2)? {
            return Ok(None);
        }
        Ok(Some(Attempt::busy(Some(Duration::from_micros(read_micros(row, 1)?)))))
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
        leases.store.run(Lane::Acquires, &leases.sql.delete_idle()).await.map(|_| ())
    }
}
