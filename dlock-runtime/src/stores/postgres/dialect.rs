//! What is particular to PostgreSQL: its literals and its error codes.

use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use crate::key::LockKey;
use crate::stores::shared::sql::hex;
use crate::stores::shared::sql::store::Dialect;

/// The key as it is stored: a text cannot hold the character zero.
pub(crate) fn stored(key: &LockKey) -> String {
    key.as_str().replace('\\', r"\\").replace('\0', r"\0")
}

/// Reads back what [`stored`] wrote.
pub(crate) fn read_key(text: &str) -> LockKey {
    let mut key = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next() == Some('0') => key.push('\0'),
            plain => key.push(plain),
        }
    }
    key.into()
}

/// A text literal that holds in every setting of `standard_conforming_strings` and every encoding.
pub(crate) fn text(value: &str) -> String {
    format!("convert_from(decode('{}','hex'),'UTF8')", hex(value.as_bytes()))
}

/// The statements of a message, each ended by the server after so long. The setting ends with the transaction, which
/// is the message; on a proxy that pools by transaction it meets nobody else.
pub(crate) fn bounded(statements: &str, limit: Duration) -> String {
    let limit = limit.as_millis().max(1);
    format!("SET LOCAL statement_timeout = {limit}; {statements}")
}

/// The SQLSTATE, see "PostgreSQL Error Codes" in its documentation.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some(error.code())
}

/// Did the server undo the statement because of another transaction or a time limit of its own, so
/// that it may be sent again at once?
pub(crate) fn is_undone(error: &sqlx::Error) -> bool {
    // serialization_failure, deadlock_detected, lock_not_available, query_canceled
    matches!(sqlstate(error), Some("40001" | "40P01" | "55P03" | "57014"))
}

/// Is this connection of no more use: the server is going away, or is a standby by now?
pub(crate) fn is_leaving(error: &sqlx::Error) -> bool {
    // admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout, read_only_sql_transaction
    matches!(sqlstate(error), Some("57P01" | "57P02" | "57P03" | "57P05" | "25006"))
}

/// May the same statement succeed a little later?
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    let passing = |state: &str| {
        // connection exceptions, insufficient resources, system errors
        matches!(state.get(..2), Some("08" | "53" | "58"))
    };
    is_undone(error)
        || is_leaving(error)
        || crate::stores::shared::sql::is_broken(error)
        || matches!(error, sqlx::Error::PoolTimedOut)
        || sqlstate(error).is_some_and(passing)
}

/// Is the table missing, or may this role not use it?
pub(crate) fn is_table_missing(error: &sqlx::Error) -> bool {
    // undefined_table; undefined_column of an older table
    matches!(sqlstate(error), Some("42P01" | "42703"))
}

/// May this role not do what was asked?
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    // insufficient_privilege
    sqlstate(error) == Some("42501")
}

impl Dialect for sqlx::Postgres {
    const KIND: &'static str = "postgres";
    const BOUND_IS_A_STATEMENT: bool = true;

    fn bounded(statements: &str, limit: Duration) -> String {
        bounded(statements, limit)
    }

    fn is_undone(error: &sqlx::Error) -> bool {
        is_undone(error)
    }

    #[cfg(feature = "mysql")]
    fn is_out_of_range(error: &sqlx::Error) -> bool {
        // numeric_value_out_of_range
        sqlstate(error) == Some("22003")
    }

    fn is_leaving(error: &sqlx::Error) -> bool {
        is_leaving(error)
    }

    fn is_transient(error: &sqlx::Error) -> bool {
        is_transient(error)
    }

    fn is_table_missing(error: &sqlx::Error) -> bool {
        is_table_missing(error)
    }

    fn is_forbidden(error: &sqlx::Error) -> bool {
        is_forbidden(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_stored_as_different_texts() {
        assert_eq!(stored(&"product:100".into()), "product:100");
        assert_eq!(stored(&"a\0".into()), r"a\0");
        assert_eq!(stored(&r"a\0".into()), r"a\\0");
        for key in ["product:100", "a\0b", r"a\0", r"\\"].map(LockKey::from) {
            assert_eq!(read_key(&stored(&key)), key);
        }
    }
}
