//! Leases in a table of a database: everything that does not depend on which database it is.
//!
//! A plain acquire, and the renewal and release of an exclusive lease, are one statement, which they share with others
//! that are ready at the same moment. Everything else reads the row, decides, and writes it if it has not changed since
//! the read; see [`crate::lock_table::row`].

pub(crate) mod connections;
pub(crate) mod leases;
pub(crate) mod options;
pub(crate) mod rows;
#[cfg(test)]
pub(crate) mod shown;
pub(crate) mod together;

use std::sync::Arc;

use sqlx::Database;

use self::connections::{LeaseStore, Options};
use self::leases::Leases;
use self::rows::Rows;
use self::together::{Found, How};
use crate::backend::{Claim, Release};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, NewRow, Purpose};
use crate::stores::shared::sql::Reply;
use crate::stores::shared::sql::prepared::Prepared;
use crate::stores::shared::sql::store::{Dialect, Store};

type RowOf<S> = <<S as LeaseDialect>::Database as Database>::Row;

/// The SQL for one table of leases. Each text is one statement, and with it one transaction.
pub(crate) trait LeaseStatements {
    /// Releases an exclusive lease after a while. With `late_acquire` it leaves a tombstone as well.
    fn release(&self, claim: &Claim, release: Release) -> String;

    fn look(&self, claim: &Claim) -> String;

    /// Returns the rows of the keys with this prefix that are held or waited for: the columns of
    /// [`look`](Self::look), and the key.
    fn list(&self, prefix: &LockKey) -> String;

    /// Creates a row that nobody holds.
    fn make(&self, key: &LockKey) -> String;

    /// Changes the row if it has not changed since the read.
    fn exchange(&self, claim: &Claim, old: &LeaseRow, new: &NewRow, purpose: Purpose) -> String;
}

/// What differs between the databases besides the statements: the URL, the table, and what an answer means.
pub(crate) trait LeaseDialect: LeaseStatements + Sized + Send + Sync + 'static {
    type Database: Dialect;

    /// The parameters of a URL that sqlx understands.
    const PARAMETERS: &[&str];

    /// The file in this crate that creates the table.
    const FILE: &'static str;

    /// The text of that file, for a table called `dlock_leases`.
    const SCHEMA: &'static str;

    /// All columns of the table.
    const COLUMNS: &'static str;

    /// How many claims are acquired, renewed or released at once at most.
    const MOST_AT_ONCE: usize;

    /// The statements for this table, which exists.
    fn open(table: String, store: &Store<Self::Database>) -> impl Future<Output = Self> + Send;

    /// Gives up the place of a claim in a line of waiters, if it may have one. Then the lock may be reserved for it. If the
    /// server does not answer, the place ends by itself.
    fn leave(
        &self,
        store: &LeaseStore<Self::Database>,
        claim: &Claim,
    ) -> impl Future<Output = bool> + Send {
        let _ = (store, claim);
        std::future::ready(false)
    }

    /// Forgets that a claim may be in line, after its release.
    fn forget(&self, claim: &Claim) {
        let _ = claim;
    }

    fn table(&self) -> &str;

    /// The server's host and port, for people.
    fn address(options: &Options<Self::Database>) -> String;

    /// Did an exchange change the row?
    fn is_changed(reply: &Reply<Self::Database>) -> bool;

    /// Did [`release`](LeaseStatements::release) find the lease?
    fn is_released(reply: &Reply<Self::Database>, release: Release) -> bool;

    /// Reads a row of [`look`](LeaseStatements::look).
    fn looked_at(row: &RowOf<Self>) -> Result<LeaseRow, BackendError>;

    /// Reads the key in a row of [`list`](LeaseStatements::list).
    fn listed_key(row: &RowOf<Self>) -> Result<LockKey, BackendError>;

    /// The statements that each of our connections prepares.
    fn prepared(&self) -> Arc<[Prepared]> {
        Arc::default()
    }

    /// Acquires these keys, which differ and are in order, each for its claim alone. `None` is for a claim that has to
    /// be asked alone; so it is with the following.
    fn acquire_each(
        &self,
        store: &LeaseStore<Self::Database>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> impl Future<Output = Result<Vec<Option<Found>>, sqlx::Error>> + Send;

    /// Renews these exclusive leases; false for one that its owner does not have. A late renewal never moves the end
    /// back.
    fn renew_each(
        &self,
        store: &LeaseStore<Self::Database>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> impl Future<Output = Result<Vec<Option<bool>>, sqlx::Error>> + Send;

    /// Releases these exclusive leases; false for one that its owner does not have.
    fn release_each(
        &self,
        store: &LeaseStore<Self::Database>,
        claims: &[&Claim],
        how: How<'_>,
    ) -> impl Future<Output = Result<Vec<Option<bool>>, sqlx::Error>> + Send;

    /// See [`RowStore::exchange_all`](crate::lock_table::row::RowStore::exchange_all).
    fn exchange_all(
        rows: &Rows<'_, Self>,
        changes: &[Change<'_>],
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Deletes rows that have not been used for a while; called now and then.
    fn sweep(leases: &Leases<Self>) -> impl Future<Output = Result<(), BackendError>> + Send;
}
