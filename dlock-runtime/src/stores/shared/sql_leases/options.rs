//! How a backend connects to its database: what its builder sets, and what its URL says.

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

/// What a builder sets.
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

/// Reads a URL. sqlx is told not to log statements.
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
