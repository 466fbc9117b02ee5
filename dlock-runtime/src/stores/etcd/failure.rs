//! What an error of the client means: whether the request was sent, and whether a retry can help.

use etcd_client::Error;

use crate::error::BackendError;

/// The numbers of gRPC's status codes.
pub(super) mod code {
    pub(in super::super) const INVALID_ARGUMENT: i32 = 3;
    pub(in super::super) const NOT_FOUND: i32 = 5;
    pub(in super::super) const PERMISSION_DENIED: i32 = 7;
    pub(in super::super) const FAILED_PRECONDITION: i32 = 9;
    pub(in super::super) const UNIMPLEMENTED: i32 = 12;
    pub(in super::super) const UNAVAILABLE: i32 = 14;
    pub(in super::super) const UNAUTHENTICATED: i32 = 16;
}

pub(super) fn status(error: &Error) -> Option<i32> {
    match error {
        Error::GRpcStatus(status) => Some(status.code() as i32),
        _ => None,
    }
}

/// Whether there was no connection to send the request over.
pub(super) fn is_unreachable(error: &Error) -> bool {
    status(error) == Some(code::UNAVAILABLE) && message(error).contains("connect error")
}

/// Whether no server sent this: the connection broke, or there was none.
pub(super) fn is_of_transport(error: &Error) -> bool {
    match error {
        // A status that a server sent has no source.
        Error::GRpcStatus(status) => std::error::Error::source(status).is_some(),
        Error::TransportError(_) | Error::IoError(_) => true,
        _ => false,
    }
}

/// Whether the server has forgotten the login, or the login predates the last change of users and roles. The server
/// has not executed the request then.
pub(super) fn is_unknown_login(error: &Error) -> bool {
    status(error) == Some(code::UNAUTHENTICATED)
        || ["invalid auth token", "revision of auth store is old"]
            .iter()
            .any(|words| message(error).contains(words))
}

/// Whether the servers refused a transaction because of what is in it, and executed nothing.
pub(super) fn is_refusal(error: &Error) -> bool {
    status(error) == Some(code::NOT_FOUND)
        || (matches!(error, Error::GRpcStatus(_)) && is_permanent(error))
}

/// Whether a retry cannot help.
fn is_permanent(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(_) => {
            let refused = matches!(
                status(error),
                Some(code::INVALID_ARGUMENT | code::PERMISSION_DENIED | code::UNIMPLEMENTED)
            );
            refused && !is_unknown_login(error)
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => true,
        _ => false,
    }
}

pub(super) fn explain(hosts: &str, what: &str, error: &Error) -> BackendError {
    let message = format!("etcd at {hosts} {what}: {}", message(error));
    if is_permanent(error) {
        BackendError::permanent(message)
    } else {
        BackendError::transient(message)
    }
}

/// The server's own words. The display form of a status has much else.
fn message(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}
