//! What makes no sense beside `transaction = …`, and why.

use super::arguments::Arguments;
use crate::diagnostic::Errors;

/// Options of a lease, and why a row lock has no such thing.
const OF_A_LEASE: [(&str, &str); 10] = [
    ("ttl", "a row lock has no lease: it lives exactly as long as the transaction"),
    ("backend", "a row lock lives in the transaction's own database"),
    ("renew", "a row lock has no lease to renew: it lives exactly as long as the transaction"),
    (
        "max_hold",
        "a row lock is held until the caller ends the transaction, which this function cannot do for it",
    ),
    ("min_hold", "a row lock ends with the transaction and cannot be kept any longer"),
    (
        "on_lost",
        "a row lock cannot be lost while its transaction lives; if that is gone, so are its writes",
    ),
    (
        "permits",
        "a database locks a row for one writer or for any number of readers, and counts none; `mode = \"shared\"` is for readers",
    ),
    ("fair", "the database keeps a queue of its own for each row"),
    ("reentrant", "a row lock is reentrant by itself, within its transaction"),
    ("unlock_before_commit", "a row lock ends with the transaction, never before its commit"),
];

/// Reports every option that is written in vain.
pub(super) fn check(arguments: &Arguments, errors: &mut Errors) {
    for argument in &arguments.read {
        let name = &argument.name;
        if let Some((_, reason)) = OF_A_LEASE.iter().find(|(of_a_lease, _)| name == of_a_lease) {
            let message = format!("`{name}` means nothing beside `transaction`: {reason}");
            errors.push(name.span(), message);
        }
    }
}
