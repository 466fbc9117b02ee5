//! How a backend connects to its database: the options of its builder, and its URL.

use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;

use super::LeaseDialect;
use super::connections::Options;
use crate::error::BackendError;
use crate::stores::shared::sql;
use crate::stores::shared::sql::store::{
    DEFAULT_CONNECTIONS, DEFAULT_LIMIT, Dialect, LONGEST_LIMIT,
};

/// The options of a builder.
#[derive(Clone, Debug)]
pub(crate) struct LeaseOptions {
    pub(super) table: String,
    pub(super) limit: Duration,
    pub(super) connections: u32,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            table: "dlock_leases".to_owned(),
            limit: DEFAULT_LIMIT,
            connections: DEFAULT_CONNECTIONS,
        }
    }
}

impl LeaseOptions {
    pub(crate) fn table(&mut self, table: String) {
        self.table = table;
    }

    pub(crate) fn response_timeout(&mut self, limit: Duration) {
        self.limit = limit.min(LONGEST_LIMIT);
    }

    pub(crate) fn max_connections(&mut self, connections: u32) {
        self.connections = connections.max(1);
    }
}

/// Reads a URL, and turns off sqlx's logging of statements.
pub(super) fn of_url<S: LeaseDialect>(url: &str) -> Result<Options<S::Database>, BackendError> {
    let kind = S::Database::KIND;
    sql::url::check_parameters(kind, url, S::PARAMETERS)?;
    let options = Options::<S::Database>::from_str(url).map_err(|error| {
        let problem = format!(
            "not a {kind} URL of the form {kind}://user:password@host:port/database: {error}"
        );
        BackendError::permanent(problem).not_sent()
    })?;
    Ok(options.disable_statement_logging())
}
