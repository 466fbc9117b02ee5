//! PostgreSQL's literals and error codes.

use std::fmt::Write as _;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};

use crate::key::LockKey;
use crate::stores::shared::sql::kept::Ready;
use crate::stores::shared::sql::prepared::{Call, Prepared};
use crate::stores::shared::sql::store::Dialect;
use crate::stores::shared::sql::{self, Reply, hex};

/// The key as it is stored: PostgreSQL's text cannot contain the character zero.
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

/// A text literal that is independent of `standard_conforming_strings` and of the encoding.
pub(crate) fn text(value: &str) -> String {
    // Decoding costs the server more than the rest of a statement's arguments. These characters need none.
    let is_plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'\'' | b'\\');
    if value.bytes().all(is_plain) {
        return format!("'{value}'::text");
    }
    format!("convert_from(decode('{}','hex'),'UTF8')", hex(value.as_bytes()))
}

/// The SQLSTATE; see "PostgreSQL Error Codes" in the manual.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some(error.code())
}

/// Planned once for all arguments, through the index even if the table was empty at that time.
const ONE_PLAN: &str =
    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; ";

/// Are these the settings of the whole session? Servers before version 12 do not have the first one.
const SETTINGS: &str = "SELECT current_setting('plan_cache_mode', true) = 'force_generic_plan' \
     AND current_setting('enable_seqscan') = 'off'; ";

impl Dialect for sqlx::Postgres {
    const KIND: &'static str = "postgres";
    const BOUND_IS_A_STATEMENT: bool = true;

    async fn send(
        connection: &mut Self::Connection,
        statements: String,
    ) -> Result<Reply<Self>, sqlx::Error> {
        sql::send::<Self>(connection, statements).await
    }

    /// The setting applies to each statement of the message. It ends with the transaction, which is the message, so
    /// behind a proxy that pools by transaction it affects nobody else.
    fn bounded(statements: &str, limit: Duration) -> String {
        let limit = limit.as_millis().max(1);
        format!("SET LOCAL statement_timeout = {limit}; {statements}")
    }

    fn with_settings(options: &PgConnectOptions) -> Option<PgConnectOptions> {
        let settings = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];
        Some(options.clone().options(settings))
    }

    fn has_settings(reply: &Reply<Self>) -> bool {
        reply.row().is_some_and(|row| matches!(row.try_get::<Option<bool>, _>(0), Ok(Some(true))))
    }

    fn call(
        call: &Call<'_>,
        ready: Ready,
        limit: Duration,
        wait: Option<Duration>,
    ) -> (String, usize) {
        let mut message = format!("SET LOCAL statement_timeout = {}; ", limit.as_millis().max(1));
        let mut settings = 1;
        if let Some(wait) = wait {
            // Writing into a `String` does not fail.
            let _ = write!(message, "SET LOCAL lock_timeout = {}; ", wait.as_millis().max(1));
            settings += 1;
        }
        if ready == Ready::Prepared {
            message.push_str(ONE_PLAN);
            settings += 2;
        }
        message.push_str(&if ready == Ready::Not { call.in_one() } else { call.execute() });
        (message, settings)
    }

    fn prepare(statements: &[Prepared], limit: Duration) -> (String, usize) {
        let prepare = statements.iter().map(Prepared::prepare).collect::<Vec<_>>().join("; ");
        let (asked, bounded) = (SETTINGS, Self::bounded(&prepare, limit));
        (format!("{asked}{bounded}"), 2)
    }

    fn is_unprepared(error: &sqlx::Error) -> bool {
        // invalid_sql_statement_name, duplicate_prepared_statement, undefined_object (a setting of a later version),
        // feature_not_supported (a plan that no longer fits the table)
        matches!(sqlstate(error), Some("26000" | "42P05" | "42704" | "0A000"))
    }

    fn is_rolled_back(error: &sqlx::Error) -> bool {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled
        matches!(sqlstate(error), Some("40001" | "40P01" | "55P03" | "57014"))
    }

    fn is_conflict(error: &sqlx::Error) -> bool {
        // serialization_failure, deadlock_detected
        matches!(sqlstate(error), Some("40001" | "40P01"))
    }

    /// The server reports nothing after a commit but that it has committed.
    fn is_undone(error: &sqlx::Error) -> bool {
        sqlstate(error).is_some()
    }

    #[cfg(feature = "mysql")]
    fn is_out_of_range(error: &sqlx::Error) -> bool {
        // numeric_value_out_of_range
        sqlstate(error) == Some("22003")
    }

    fn is_unusable(error: &sqlx::Error) -> bool {
        // admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout, read_only_sql_transaction
        matches!(sqlstate(error), Some("57P01" | "57P02" | "57P03" | "57P05" | "25006"))
    }

    fn is_temporary(error: &sqlx::Error) -> bool {
        // connection exceptions, insufficient resources, system errors
        let passing = |state: &str| matches!(state.get(..2), Some("08" | "53" | "58"));
        sqlstate(error).is_some_and(passing)
    }

    fn is_table_missing(error: &sqlx::Error) -> bool {
        // undefined_table; undefined_column of an older table
        matches!(sqlstate(error), Some("42P01" | "42703"))
    }

    fn is_permission_denied(error: &sqlx::Error) -> bool {
        // insufficient_privilege
        sqlstate(error) == Some("42501")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparing_is_bounded() {
        let statement = Prepared::new("read", &[], "SELECT 1".to_owned());
        let (message, before) = sqlx::Postgres::prepare(&[statement], Duration::from_millis(1_500));
        assert!(message.contains("; SET LOCAL statement_timeout = 1500; PREPARE "), "{message}");
        assert_eq!(before, 2);
    }

    #[test]
    fn a_literal_contains_no_character_with_a_meaning() {
        assert_eq!(text("product:100"), "'product:100'::text");
        for other in ["a'b", r"a\b", "a\nb", "ä", "a\u{7f}"] {
            let decoded = format!("convert_from(decode('{}','hex'),'UTF8')", hex(other.as_bytes()));
            assert_eq!(text(other), decoded);
        }
    }

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
