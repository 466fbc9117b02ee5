//! Mistakes in combinations of options.

use std::time::Duration;

use proc_macro2::Span;
use syn::spanned::Spanned;

use super::arguments::{Argument, Arguments};
use super::{Key, Keys, Mode, Options, Wait, row_lock};
use crate::diagnostic::Errors;

pub(super) fn check(options: &Options, arguments: &Arguments, errors: &mut Errors) {
    check_keys(options, arguments, errors);
    check_kind(options, arguments, errors);
    check_times(options, arguments, errors);
    check_handover(options, arguments, errors);
    if written(arguments, "transaction").is_some() {
        row_lock::check(arguments, errors);
    }
}

fn written<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a Argument> {
    arguments.read.iter().find(|argument| argument.name == name)
}

fn check_keys(options: &Options, arguments: &Arguments, errors: &mut Errors) {
    match (written(arguments, "key"), written(arguments, "keys")) {
        (Some(_), Some(keys)) => errors.push(
            keys.name.span(),
            "`key` and `keys` exclude each other: put all keys into `keys = [\"…\", \"…\"]`",
        ),
        (None, None) if !arguments.unreadable => errors.push(
            Span::call_site(),
            "what is locked? Write `key = \"product:<id>\"`, with the name of an argument between `<` and `>`",
        ),
        _ => {}
    }
    let mut templates = Vec::new();
    for key in options.keys.as_ref().map(Keys::as_slice).unwrap_or_default() {
        let Key::Template { literal, .. } = key else { continue };
        if templates.contains(&literal.value()) {
            let message = format!(
                "\"{}\" stands in `keys` already, and one key is one lock: leave it out, or name another argument in it",
                literal.value()
            );
            errors.push(literal.span(), message);
        }
        templates.push(literal.value());
    }
}

/// Checks the options that determine the kind of lock.
fn check_kind(options: &Options, arguments: &Arguments, errors: &mut Errors) {
    if let (Some(_), Some(permits)) = (written(arguments, "mode"), written(arguments, "permits")) {
        let fix = match (options.mode, options.permits) {
            (Some(Mode::Shared), _) => {
                "readers that share a lock are not counted: keep `mode = \"shared\"`, or count the holders with `permits` alone"
            }
            _ => {
                "`permits = 1` is an exclusive lock, and any other number is none: keep one of the two"
            }
        };
        errors.push(permits.name.span(), format!("`mode` and `permits` exclude each other: {fix}"));
    }
    if let (Some(true), Some(Wait::UpTo(Duration::ZERO)), Some(fair)) =
        (options.fair, options.wait(), written(arguments, "fair"))
    {
        let (cause, fix) = match options.wait {
            Some(_) => ("`wait = \"0s\"`", "give `wait` some time"),
            None => ("`on_busy = \"skip\"` and without `wait`", "add `wait = \"…\"`"),
        };
        let message = format!(
            "`fair` is the order of those who wait, and with {cause} nobody does: leave out `fair`, or {fix}"
        );
        errors.push(fair.name.span(), message);
    }
}

/// Only the lease of a plain exclusive lock is passed on.
fn check_handover(options: &Options, arguments: &Arguments, errors: &mut Errors) {
    let (Some(_), Some(handover)) = (options.handover, written(arguments, "handover")) else {
        return;
    };
    let cause = if matches!(options.keys, Some(Keys::All(_))) {
        "several `keys` are released together"
    } else if matches!(options.mode, Some(Mode::Shared)) || options.permits.is_some() {
        "others may hold the lock at the same time"
    } else if options.fair == Some(true) {
        "with `fair` the store decides who is next"
    } else if options.min_hold.is_some() {
        "`min_hold` keeps the lock from the next task too"
    } else if options.grace.is_some() {
        "with `grace` what the task before has sent may still arrive"
    } else {
        return;
    };
    let message = format!(
        "`handover` passes an exclusive lock from one task to the next, and {cause}: leave out `handover`"
    );
    errors.push(handover.name.span(), message);
}

fn check_times(options: &Options, arguments: &Arguments, errors: &mut Errors) {
    if let (Some(false), Some(ttl), Some(max_hold)) = (options.renew, options.ttl, options.max_hold)
        && max_hold > ttl
        && let Some(argument) = written(arguments, "max_hold")
    {
        errors.push(
            argument.value.span(),
            "`max_hold` is longer than `ttl`, and with `renew = false` the lease ends after one `ttl`: raise `ttl`, shorten `max_hold` or let the lease be renewed",
        );
    }
    if let (Some(min_hold), Some(max_hold)) = (options.min_hold, options.max_hold)
        && min_hold > max_hold
        && let Some(argument) = written(arguments, "min_hold")
    {
        errors.push(
            argument.value.span(),
            "`min_hold` is longer than `max_hold`: the lock cannot be kept longer than it may be held; shorten `min_hold` or raise `max_hold`",
        );
    }
}
