//! Options that make no sense with `transaction = …`, and why.

use super::arguments::Arguments;
use super::table;
use crate::diagnostic::Errors;

/// Reports every option that would have no effect.
pub(super) fn check(arguments: &Arguments, errors: &mut Errors) {
    for argument in &arguments.read {
        let name = &argument.name;
        let option = table::find(&name.to_string());
        if let Some(reason) = option.and_then(|option| option.not_in_transaction) {
            let message = format!("`{name}` means nothing beside `transaction`: {reason}");
            errors.push(name.span(), message);
        }
    }
}
