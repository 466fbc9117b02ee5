//! Failed requests: the error for the caller, and what may help.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::BackendError;

/// The error for the caller, and a hint for the client of a Cluster.
#[derive(Clone, Debug)]
pub(in crate::stores) struct Failed {
    pub(in crate::stores) error: BackendError,
    pub(in crate::stores) hint: Hint,
    /// The request was sent twice. The first copy may be executed at any later time.
    pub(super) was_resent: bool,
}

/// What may help after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Hint {
    Nothing,
    /// The node at this address has the slot now (`MOVED`).
    Moved(String),
    /// The node at this address has the slot for this request (`ASK`).
    Ask(String),
    /// A retry, soon: a slot is being moved, or a master elected.
    Later,
    /// The server could not be reached or did not answer.
    Elsewhere,
}

impl Failed {
    pub(in crate::stores) fn new(address: &str, what: &str, error: RedisError) -> Self {
        let message = format!("redis at {address} {what}: {error}");
        let explained = if is_transient(&error) {
            BackendError::transient(message)
        } else {
            BackendError::permanent(message)
        };
        let hint = hint(&error);
        Self { error: explained.with_source(error), hint, was_resent: false }
    }
}

impl Failed {
    /// Declares that an earlier copy of the request may have been executed.
    pub(super) fn maybe_sent(self) -> Self {
        Self { error: self.error.maybe_sent(), was_resent: true, ..self }
    }
}

/// The server could not be reached.
impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        Self { error, hint: Hint::Elsewhere, was_resent: false }
    }
}

impl From<Failed> for BackendError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

fn hint(error: &RedisError) -> Hint {
    let address = || error.redirect_node().map(|(address, _)| address.to_owned());
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => address().map_or(Hint::Nothing, Hint::Moved),
        ErrorKind::Server(ServerErrorKind::Ask) => address().map_or(Hint::Nothing, Hint::Ask),
        ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown) => Hint::Later,
        _ if is_broken(error) => Hint::Elsewhere,
        _ => Hint::Nothing,
    }
}

/// Can this connection no longer be trusted to carry requests to a master?
pub(in crate::stores) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

fn is_transient(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io => true,
        // A script could not read what another version has written, which ends with that version's holds.
        ErrorKind::Server(ServerErrorKind::ResponseError) => {
            error.detail().is_some_and(|detail| detail.contains("another version of dlock"))
        }
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::NoScript
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
        ),
        ErrorKind::Extension => {
            matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY"))
        }
        _ => error.is_timeout() || error.is_connection_dropped(),
    }
}
