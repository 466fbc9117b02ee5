//! Creates missing tables.

use super::store::{Dialect, Store, failure};
use crate::error::BackendError;

/// Processes that create the same table at the same moment can make each other fail.
const TRIES: u32 = 5;

/// A table and the file that creates it.
pub(crate) struct Table<'a> {
    pub(crate) name: &'a str,
    /// The path in this crate.
    pub(crate) file: &'static str,
    /// The contents of the file, with the table's real name.
    pub(crate) statements: String,
    /// Succeeds only if the table can be used.
    pub(crate) probe: String,
}

impl Table<'_> {
    /// Creates the table if it is missing.
    pub(crate) async fn ensure<DB: Dialect>(&self, store: &Store<DB>) -> Result<(), BackendError> {
        let mut refused: Option<sqlx::Error> = None;
        for _ in 0..TRIES {
            match store.try_run(&self.probe).await {
                Ok(reply) if reply.row().is_some() => return Ok(()),
                // The table exists, but its first row does not.
                Ok(_) => {}
                Err(error) if DB::is_table_missing(&error) => {}
                Err(error) if DB::is_permission_denied(&error) => {
                    return Err(self.forbidden::<DB>(error));
                }
                Err(error) => return Err(failure::<DB>(error)),
            }
            if let Some(error) = refused.take_if(|error| DB::is_permission_denied(error)) {
                return Err(self.cannot_be_created::<DB>(error));
            }
            refused = store.try_run(&self.statements).await.err();
        }
        // The table exists, but lacks a column.
        if let Err(error) = store.try_run(&self.probe).await
            && DB::is_table_missing(&error)
        {
            return Err(self.of_another_version::<DB>(error));
        }
        Err(match refused {
            Some(error) => failure::<DB>(error),
            None => BackendError::permanent(format!(
                "{}: the table `{}` was created but cannot be read",
                DB::KIND,
                self.name
            )),
        })
    }

    fn forbidden<DB: Dialect>(&self, error: sqlx::Error) -> BackendError {
        let (kind, name, file) = (DB::KIND, self.name, self.file);
        BackendError::permanent(format!(
            "{kind}: this role may not use the table `{name}` ({error}); `{file}` of dlock-runtime lists the required privileges"
        ))
        .with_source(error)
    }

    fn of_another_version<DB: Dialect>(&self, error: sqlx::Error) -> BackendError {
        let (kind, name, file) = (DB::KIND, self.name, self.file);
        BackendError::permanent(format!(
            "{kind}: the table `{name}` is not the one that this version of dlock uses ({error}); while no service uses it, rename or drop it (it is then created again), or alter it to match `{file}` of dlock-runtime"
        ))
        .with_source(error)
    }

    fn cannot_be_created<DB: Dialect>(&self, error: sqlx::Error) -> BackendError {
        let (kind, name, file) = (DB::KIND, self.name, self.file);
        BackendError::permanent(format!(
            "{kind}: the table `{name}` is missing and this role may not create it ({error}); run `{file}` of dlock-runtime once as a role that may"
        ))
        .with_source(error)
    }
}

/// The version of the lease table that this version of the crate uses. The row with the empty key stores it in
/// `claimant`. In tables that predate versions, that column of the row is empty.
const VERSION: &str = "v1";

/// Refuses a table that a later version of dlock has changed.
pub(crate) async fn refuse_later_version<DB: Dialect>(
    name: &str,
    store: &Store<DB>,
) -> Result<(), BackendError> {
    let later = format!(
        "SELECT 1 FROM {name} WHERE lock_key = '' AND claimant <> '' AND claimant <> '{VERSION}'"
    );
    match store.run(later).await?.row() {
        None => Ok(()),
        Some(_) => Err(BackendError::permanent(format!(
            "{}: the table `{name}` belongs to a later version of dlock than this one, which reads `{VERSION}`; update this service",
            DB::KIND
        ))),
    }
}

/// Checks a table's name, which becomes part of statements. It consists of letters, digits and
/// underscores, with or without a schema.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), BackendError> {
    let is_identifier = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !word.starts_with(|first: char| first.is_ascii_digit())
    };
    if name.split('.').count() <= 2 && name.split('.').all(is_identifier) {
        return Ok(());
    }
    let problem = format!(
        "{kind}: `{name}` is not a valid table name: use letters, digits and underscores, optionally after a schema and a dot"
    );
    Err(BackendError::permanent(problem).not_sent())
}
