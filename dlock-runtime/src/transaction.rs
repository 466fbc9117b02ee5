//! Row locks inside the caller's own database transaction.
//!
//! ```ignore
//! let mut tx = pool.begin().await?;
//! let lock = dlock_runtime::transaction::lock(&mut tx, "product:7").wait(TWO_SECONDS).await?;
//! sqlx::query("UPDATE products SET stock = stock - 1 WHERE id = 7").execute(&mut *tx).await?;
//! tx.commit().await?; // only now may the next one enter
//! ```
//!
//! A lease that ends before its holder's transaction commits lets the next holder read what was there
//! before: the best known mistake of lock annotations. A row lock cannot make it: it is taken in the
//! transaction itself and lives exactly as long, until commit, roll-back or the loss of the
//! connection, which is a roll-back. It needs no registry, no renewal and no release. The attribute's
//! form is `transaction = tx`.
//!
//! # Isolation
//! Above READ COMMITTED a transaction reads from a snapshot that may be older than the lock: with the
//! lock held it still sees the stock before the last purchase, and oversells. Such a transaction is
//! refused ([`LockError::Transaction`]), unless [`any_isolation`](RowLockRequest::any_isolation) says
//! that its plain reads do not matter. PostgreSQL's default is READ COMMITTED; with MySQL and MariaDB,
//! whose default is REPEATABLE READ, give the pool's connections
//! `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED` (`after_connect` of the pool's options).
//!
//! # What it costs
//! Two round trips: one asks for the transaction's settings, one locks and draws the token. A wait
//! limit ends with the call: no setting outlives it. A wait of more than a few seconds is several
//! statements: one that was abandoned occupies its connection no longer than that.
//!
//! # Readers
//! With [`mode(Mode::Shared)`](RowLockRequest::mode), or `mode = "shared"` at the attribute, transactions share
//! the key with other readers and exclude writers; a writer that waits goes before readers that come later.
//!
//! # Tokens
//! Each lock has a [`FencingToken`](crate::FencingToken), drawn after the lock was won, for resources outside the
//! database. Inside it the transaction is protection enough. It is the database's time in microseconds, or one more
//! than the last token where that is ahead. On MySQL the last token is kept in the row, within the transaction, and
//! a reader keeps none: after a roll-back or a reader only the time makes the next token larger, so there the
//! server's clock must not be set back.
//!
//! # A row lock and a lease of one name
//! are two locks: they do not exclude each other. `install` warns of a template that is used in both
//! forms.
//!
//! # How it works
//! On PostgreSQL the lock is a row of `dlock_rows` that is inserted and deleted again within the
//! transaction: an equal insertion waits until that transaction has ended (the documentation of
//! `INSERT … ON CONFLICT` and of unique indexes), and nothing is left behind. The token is the next
//! value of the sequence `dlock_tokens`, which is raised to the time. Readers share `pg_advisory_xact_lock_shared` on a hash of the key, which
//! writers take exclusively before the row. A savepoint keeps the earlier writes when the lock is busy.
//! On MySQL and MariaDB it is `SELECT … FOR UPDATE` on a row of `dlock_rows`, bounded by the optimizer
//! hint `MAX_EXECUTION_TIME` or by `SET STATEMENT max_statement_time`, and the row holds the last
//! token; readers take `LOCK IN SHARE MODE`. `create_tables` makes what is missing; the files are in the crate's folder `sql`.

use std::time::Duration;

use crate::error::LockError;
use crate::key::LockKey;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod answer;
mod request;
mod row_lock;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod tables;

#[cfg(feature = "mysql")]
pub use crate::stores::mysql::idle_rows::delete_idle_rows;
pub(crate) use request::{RowLockOptions, lock_valid};
pub use request::{RowLockRequest, RowLocksRequest};
pub use row_lock::{RowLock, RowLocks};
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use tables::{RowLockDatabase, create_tables};

/// How long to wait if nothing is said: as long as for a lease of the default ttl.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(31);

/// Locks a key until the transaction ends.
///
/// The answer is awaited: `lock(&mut tx, "product:7").wait(limit).await?`.
///
/// # Errors
/// [`LockError::Busy`] when another transaction held it for the whole wait: what this transaction has
/// written is intact, and its commit commits it. [`LockError::Transaction`] for a connection without
/// a transaction that was begun through sqlx, and for isolation above READ COMMITTED.
/// [`LockError::Backend`] for what the database refuses; after a deadlock the transaction must be
/// rolled back and begun again, and MySQL has rolled it back itself already. The same for a database
/// that does not answer within a second after the wait, or, while there is time, within five seconds
/// after it should have: the transaction must be rolled back then as well.
/// [`LockError::InvalidKey`] before anything is sent.
///
/// # Cancel safety
/// Dropping the answer before it is there leaves the transaction in an unknown state, the lock held
/// or not: roll it back (dropping it does). The database goes on with what it was asked for, for a few
/// seconds at most: until then the connection hears no other statement, and its pool does not hand it
/// out. The next statement may report the failure of the one that was dropped.
pub fn lock<C: Transactional + ?Sized>(
    transaction: &mut C,
    key: impl Into<LockKey>,
) -> RowLockRequest<'_, C> {
    RowLockRequest::new(transaction, key.into())
}

/// Locks several keys until the transaction ends: all, or the call fails.
///
/// They are taken in the order of their keys, so that two such calls never deadlock; equal keys are
/// one. When one of them is busy, PostgreSQL gives the others back; MySQL keeps what was locked until
/// the transaction ends.
///
/// # Errors
/// Those of [`lock`].
///
/// # Cancel safety
/// That of [`lock`].
pub fn lock_all<C: Transactional + ?Sized, K: Into<LockKey>>(
    transaction: &mut C,
    keys: impl IntoIterator<Item = K>,
) -> RowLocksRequest<'_, C> {
    RowLocksRequest::new(transaction, keys.into_iter().map(Into::into).collect())
}

/// A connection that can be in a transaction which holds row locks: `sqlx::Transaction<'_, Postgres>`,
/// `PgConnection` (feature `postgres`), `sqlx::Transaction<'_, MySql>`, `MySqlConnection` (feature
/// `mysql`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transaction that can hold a row lock",
    label = "must be a transaction of PostgreSQL or MySQL that was begun through sqlx",
    note = "pass a `&mut sqlx::Transaction<'_, Postgres>` with the feature `postgres` of dlock-runtime, or a `&mut sqlx::Transaction<'_, MySql>` with the feature `mysql`"
)]
pub trait Transactional: Send + sealed::LockRows {}

pub(crate) mod sealed {
    use std::pin::Pin;

    use super::{LockError, LockKey, RowLockOptions};
    use crate::token::FencingToken;

    /// A token for each key.
    pub(crate) type Locking<'a> =
        Pin<Box<dyn Future<Output = Result<Vec<FencingToken>, LockError>> + Send + 'a>>;

    /// What each kind of connection does in its own way. There is a key at least; they are valid, sorted and
    /// different.
    pub trait LockRows {
        fn lock_rows<'a>(&'a mut self, keys: &'a [LockKey], terms: RowLockOptions) -> Locking<'a>;
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    impl<DB: super::RowLockDatabase> LockRows for sqlx::Transaction<'_, DB> {
        fn lock_rows<'a>(&'a mut self, keys: &'a [LockKey], terms: RowLockOptions) -> Locking<'a> {
            (**self).lock_rows(keys, terms)
        }
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<DB: RowLockDatabase> Transactional for sqlx::Transaction<'_, DB> {}
