//! Row locks inside the caller's own database transaction.
//!
//! ```ignore
//! let mut tx = pool.begin().await?;
//! let lock = dlock_runtime::transaction::lock(&mut tx, "product:7").wait(TWO_SECONDS).await?;
//! sqlx::query("UPDATE products SET stock = stock - 1 WHERE id = 7").execute(&mut *tx).await?;
//! tx.commit().await?; // only now can the next caller acquire the lock
//! ```
//!
//! If a lease ends before its holder's transaction commits, the next holder reads the old data. This is
//! the best-known mistake with lock annotations. A row lock rules it out: it is acquired in the
//! transaction itself and lives exactly as long, until commit, rollback or the loss of the connection,
//! which rolls back. It needs no registry, no renewal and no release. With the attribute, write
//! `transaction = tx`. The guide [Row locks](crate::guide::row_locks) has the options, the guarantees and the
//! failures.
//!
//! # Isolation
//! Above READ COMMITTED, a transaction reads from a snapshot that may be older than the lock. Under the
//! lock it would still see the stock before the last purchase, and oversell. Such a transaction is
//! refused ([`LockError::Transaction`]), unless [`any_isolation`](RowLockRequest::any_isolation) states
//! that its plain reads do not matter. PostgreSQL's default is READ COMMITTED. The default of MySQL and
//! MariaDB is REPEATABLE READ; execute `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED` on the
//! pool's connections (`after_connect` of the pool's options).
//!
//! # What it costs
//! Two round trips: one reads the transaction's settings, one locks and draws the token. No setting, such
//! as a timeout, outlives the call. A wait of more than a few seconds takes several statements, so an
//! abandoned statement occupies its connection for a few seconds at most.
//!
//! # Readers
//! With [`mode(Mode::Shared)`](RowLockRequest::mode), or `mode = "shared"` in the attribute, transactions share
//! the key with other readers and exclude writers. A waiting writer goes before later readers.
//!
//! # Tokens
//! Each lock has a [`FencingToken`](crate::FencingToken) for resources outside the database, drawn after the lock was
//! won. Inside the database the transaction is protection enough. The token is the database's time in microseconds,
//! or the last token plus one if that is larger. On MySQL the last token is stored in the row, within the
//! transaction, and a reader stores none. After a rollback or a reader, only the time makes the next token larger, so
//! the server's clock must not be set back.
//!
//! # Row locks and leases
//! A row lock and a lease with the same name are two locks: they do not exclude each other. `install` warns about a
//! template that is used in both forms.
//!
//! # How it works
//! On PostgreSQL the lock is a row of `dlock_rows` that is inserted and deleted again within the
//! transaction. An equal insert waits until that transaction has ended (see PostgreSQL's documentation of
//! `INSERT … ON CONFLICT` and of unique indexes), and nothing is left behind. The token is the next value
//! of the sequence `dlock_tokens`, which is raised to the time. Readers share
//! `pg_advisory_xact_lock_shared` on a hash of the key; writers acquire that lock exclusively before the
//! row. A savepoint preserves the earlier writes if the lock is busy.
//!
//! On MySQL and MariaDB the lock is `SELECT … FOR UPDATE` on a row of `dlock_rows`, limited by the
//! optimizer hint `MAX_EXECUTION_TIME` or by `SET STATEMENT max_statement_time`. The row stores the last
//! token. Readers use `LOCK IN SHARE MODE`.
//!
//! `create_tables` creates what is missing, from `src/stores/postgres/rows.sql` and
//! `src/stores/mysql/rows.sql`.

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

/// The default wait: the same as for a lease with the default ttl.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(31);

/// Locks a key until the transaction ends.
///
/// Await the request: `lock(&mut tx, "product:7").wait(limit).await?`.
///
/// # Errors
/// - [`LockError::Busy`] if another transaction held the lock for the whole wait. This transaction's
///   earlier writes are intact, and its commit commits them.
/// - [`LockError::Transaction`] for a connection without a transaction that was begun through sqlx, and
///   for isolation above READ COMMITTED.
/// - [`LockError::Backend`] for errors of the database. After a deadlock the transaction must be rolled
///   back and begun again; MySQL has already rolled it back. It is also this error if the database does
///   not answer: within a second after the wait or, in a long wait that takes several statements, within
///   five seconds after the time limit of one of them. Then, too, the transaction must be rolled back.
/// - [`LockError::InvalidKey`] before anything is sent.
///
/// # Cancel safety
/// Not cancel safe: dropping the future leaves the transaction in an unknown state, with the lock held
/// or not. Roll it back (dropping it does). The database continues the statement for a few seconds at
/// most. Until then the connection executes no other statement, and its pool does not hand it out. The
/// next statement may report the failure of the dropped one.
pub fn lock<C: Transactional + ?Sized>(
    transaction: &mut C,
    key: impl Into<LockKey>,
) -> RowLockRequest<'_, C> {
    RowLockRequest::new(transaction, key.into())
}

/// Locks several keys until the transaction ends: all of them, or the call fails.
///
/// The keys are locked in sorted order, so two such calls never deadlock. Duplicate keys count once. If
/// one key is busy, PostgreSQL releases the others; MySQL keeps those already locked until the
/// transaction ends.
///
/// # Errors
/// Those of [`lock`].
///
/// # Cancel safety
/// Same as [`lock`].
pub fn lock_all<C: Transactional + ?Sized, K: Into<LockKey>>(
    transaction: &mut C,
    keys: impl IntoIterator<Item = K>,
) -> RowLocksRequest<'_, C> {
    RowLocksRequest::new(transaction, keys.into_iter().map(Into::into).collect())
}

/// A connection whose transaction can hold row locks: `sqlx::Transaction<'_, Postgres>`,
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

    /// One token for each key.
    pub(crate) type Locking<'a> =
        Pin<Box<dyn Future<Output = Result<Vec<FencingToken>, LockError>> + Send + 'a>>;

    /// The database-specific part. There is at least one key; the keys are valid, sorted and distinct.
    pub trait LockRows {
        fn lock_rows<'a>(&'a mut self, keys: &'a [LockKey], options: RowLockOptions)
        -> Locking<'a>;
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    impl<DB: super::RowLockDatabase> LockRows for sqlx::Transaction<'_, DB> {
        fn lock_rows<'a>(
            &'a mut self,
            keys: &'a [LockKey],
            options: RowLockOptions,
        ) -> Locking<'a> {
            (**self).lock_rows(keys, options)
        }
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<DB: RowLockDatabase> Transactional for sqlx::Transaction<'_, DB> {}
