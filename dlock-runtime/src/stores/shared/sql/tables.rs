//! Making tables that are missing.

use super::store::{Dialect, Store, failure};
use crate::error::BackendError;

/// Other processes may make the same table at the same moment, and then fail or make this one fail.
const TRIES: u32 = 5;

/// A table and the file that makes it.
pub(crate) struct Table<'a> {
    pub(crate) name: &'a str,
    /// The file in this crate.
    pub(crate) file: &'static str,
    /// What is in it, under the table's real name.
    pub(crate) statements: String,
    /// Answers without an error only if the table can be used.
    pub(crate) probe: String,
}

impl Table<'_> {
    /// Makes the table unless it is there already.
    pub(crate) async fn ensure<DB: Dialect>(&self, store: &Store<DB>) -> Result<(), BackendError> {
        let mut refused: Option<sqlx::Error> = None;
        for _ in 0..TRIES {
            match store.try_run(&self.probe).await {
                Ok(reply) if reply.row().is_some() => return Ok(()),
                // The table is there, but not its first row.
                Ok(_) => {}
                Err(error) if DB::is_table_missing(&error) => {}
                Err(error) if DB::is_forbidden(&error) => return Err(self.forbidden::<DB>(error)),
                Err(error) => return Err(failure::<DB>(error)),
            }
            if let Some(error) = refused.take_if(|error| DB::is_forbidden(error)) {
                return Err(self.may_not_be_made::<DB>(error));
            }
            refused = store.try_run(&self.statements).await.err();
        }
        // It is there, and making it did not help.
        if let Err(error) = store.try_run(&self.probe).await
            && DB::is_table_missing(&error)
        {
            return Err(self.of_another_version::<DB>(error));
        }
        Err(match refused {
            Some(error) => failure::<DB>(error),
            None => BackendError::permanent(format!(
                "{}: the table `{}` was made but does not answer",
                DB::KIND,
                self.name
            )),
        })
    }

    fn forbidden<DB: Dialect>(&self, error: sqlx::Error) -> BackendError {
        let (kind, name, file) = (DB::KIND, self.name, self.file);
        BackendError::permanent(format!(
            "{kind}: this role may not use the table `{name}` ({error}); `{file}` of dlock-runtime names the privileges it needs"
        ))
        .with_source(error)
    }

    fn of_another_version<DB: Dialect>(&self, error: sqlx::Error) -> BackendError {
        let (kind, name, file) = (DB::KIND, self.name, self.file);
        BackendError::permanent(format!(
            "{kind}: the table `{name}` is not the one that this version of dlock uses ({error}); rename or drop it while no service uses it, and it is made anew, or let it become what `{file}` of dlock-runtime makes"
        ))
        .with_source(error)
    }

    fn may_not_be_made<DB: Dialect>(&self, error: sqlx::Error) -> BackendError {
        let (kind, name, file) = (DB::KIND, self.name, self.file);
        BackendError::permanent(format!(
            "{kind}: the table `{name}` is missing and this role may not make it ({error}); let a role that may run `{file}` of dlock-runtime once"
        ))
        .with_source(error)
    }
}

/// The version of the table of leases that this version of the crate uses: its row without a key says so where it
/// would say whose row it is. Tables that were made before there were versions say nothing there.
const VERSION: &str = "v1";

/// Refuses a table that a later version has changed.
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
            "{}: the table `{name}` is of a later version of dlock than this one, which reads `{VERSION}`: update this service",
            DB::KIND
        ))),
    }
}

/// A table's name becomes part of statements: letters, digits and underscores, with a schema or
/// without.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), BackendError> {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !word.starts_with(|first: char| first.is_ascii_digit())
    };
    if name.split('.').count() <= 2 && name.split('.').all(is_word) {
        return Ok(());
    }
    let problem = format!(
        "{kind}: `{name}` cannot be a table's name: write letters, digits and underscores, with a schema and a dot before them or without"
    );
    Err(BackendError::permanent(problem).not_sent())
}
