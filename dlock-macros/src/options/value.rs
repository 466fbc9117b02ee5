//! Parses the values of single options. Each has its own error messages.

use std::num::NonZeroU32;
use std::time::Duration;

use syn::{Expr, ExprLit, ExprPath, Ident, Lit, LitBool, LitStr};

use super::arguments::Argument;
use super::{Handover, Wait};
use crate::diagnostic::nearest;
use crate::duration::Bounds;

pub(super) fn ttl(argument: &Argument) -> syn::Result<Duration> {
    duration(argument, Bounds::TTL)
}

pub(super) fn hold(argument: &Argument) -> syn::Result<Duration> {
    duration(argument, Bounds::HOLD)
}

pub(super) fn wait(argument: &Argument) -> syn::Result<Wait> {
    let words = text(&argument.value).map(LitStr::value);
    match words.as_deref() {
        Some("forever") => Ok(Wait::Forever),
        Some(word)
            if word.chars().all(char::is_alphabetic) && nearest(word, &["forever"]).is_some() =>
        {
            Err(error(
                &argument.value,
                format!("\"{word}\" is no time to wait: did you mean \"forever\"?"),
            ))
        }
        _ => duration(argument, Bounds::WAIT).map(Wait::UpTo),
    }
}

fn duration(argument: &Argument, bounds: Bounds) -> syn::Result<Duration> {
    let Argument { name, value } = argument;
    let problem = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) => match &*literal.value() {
            "forever" => "\"forever\" is for `wait` only: write numbers and units, such as \"5s\"".to_owned(),
            text => match bounds.parse(text) {
                Ok(duration) => return Ok(duration),
                Err(problem) => problem,
            },
        },
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => match number.suffix() {
            "" => format!("a duration is a string with a unit: did you mean \"{number}s\"?"),
            _ => format!("a duration is a string with a unit: did you mean \"{number}\"?"),
        },
        _ => "a duration is a string with a unit, such as \"5s\"; it must be known when the program is compiled".to_owned(),
    };
    Err(error(value, format!("`{name}`: {problem}")))
}

pub(super) fn backend(argument: &Argument) -> syn::Result<LitStr> {
    let literal = string(
        &argument.value,
        "`backend` is the name under which a backend was registered",
        "\"redis\"",
    )?;
    if literal.value().is_empty() {
        return Err(error(
            &literal,
            "`backend` is empty: write the name under which a backend was registered, or leave the option out for the registry's default",
        ));
    }
    Ok(literal)
}

pub(super) fn boolean(argument: &Argument) -> syn::Result<bool> {
    let Argument { name, value } = argument;
    if let Expr::Lit(ExprLit { lit: Lit::Bool(LitBool { value, .. }), .. }) = value {
        return Ok(*value);
    }
    let quotes = if text(value).is_some() { ", without quotes" } else { "" };
    let write = format!("write `{name} = true` or `{name} = false`{quotes}");
    Err(error(value, format!("`{name}` is a switch: {write}")))
}

/// The runtime's `Handover::MAX_PASSES`.
const MAX_PASSES: u16 = 1_023;

pub(super) fn handover(argument: &Argument) -> syn::Result<Handover> {
    let literal = string(
        &argument.value,
        "`handover` says how often, and for how long, this process may pass the lock from task to task",
        "\"64 in 10ms\"",
    )?;
    let written = literal.value();
    if written.trim() == "off" {
        return Ok(Handover { passes: 0, within: Duration::ZERO });
    }
    let problem = |problem: String| error(&literal, format!("`handover`: {problem}"));
    let Some((passes, within)) = written.split_once(" in ") else {
        return Err(problem(format!(
            "\"{written}\" is no limit: write a number of passes and a time, such as \"64 in 10ms\", or \"off\""
        )));
    };
    let (passes, within) = (passes.trim(), within.trim());
    let passes = match passes.parse() {
        Ok(0) => return Err(problem("no passes are written \"off\"".to_owned())),
        Ok(passes @ ..=MAX_PASSES) => passes,
        Ok(_) => {
            return Err(problem(format!("\"{passes}\" passes are too many: at most {MAX_PASSES}")));
        }
        Err(_) => {
            return Err(problem(format!(
                "\"{passes}\" is no number of passes: write \"64 in 10ms\", or \"off\""
            )));
        }
    };
    let within = Bounds::HANDOVER.parse(within).map_err(problem)?;
    Ok(Handover { passes, within })
}

pub(super) fn permits(argument: &Argument) -> syn::Result<NonZeroU32> {
    let Argument { name, value } = argument;
    let number = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Some(number),
        _ => None,
    };
    if let Some(number) = number
        && matches!(number.suffix(), "" | "u32")
    {
        return match number.base10_parse::<u32>().map(NonZeroU32::new) {
            Ok(Some(permits)) => Ok(permits),
            Ok(None) => Err(error(
                value,
                format!(
                    "`{name} = 0` lets nobody in: write how many may hold the lock at once, at least 1"
                ),
            )),
            Err(_) => Err(error(value, format!("`{name}` is too large: at most {}", u32::MAX))),
        };
    }
    let quoted = text(value).map(LitStr::value).filter(|text| text.parse::<u32>().is_ok());
    let message = match quoted {
        Some(text) => format!("`{name}` is a number: write `{name} = {text}`, without quotes"),
        None => format!(
            "`{name}` is the number of those who may hold the lock at once, known when the program is compiled: write `{name} = 5`"
        ),
    };
    Err(error(value, message))
}

pub(super) fn word<T: Copy>(argument: &Argument, words: &[(&str, T)]) -> syn::Result<T> {
    let Argument { name, value } = argument;
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let written = match (text(value), value) {
        (Some(literal), _) => literal.value(),
        (None, Expr::Path(path)) => path.path.get_ident().map(Ident::to_string).unwrap_or_default(),
        _ => String::new(),
    };
    let meant = words.iter().find(|(word, _)| *word == written);
    if let (Some((_, meant)), Some(_)) = (meant, text(value)) {
        return Ok(*meant);
    }
    let choice = format!("\"{}\"", known.join("\", \""));
    let message = match nearest(&written, &known) {
        Some(near) if near == written => {
            format!("`{name}` is a string: write \"{near}\", in quotes")
        }
        Some(near) if !written.is_empty() => {
            format!("`{name}` is one of {choice}, not \"{written}\": did you mean \"{near}\"?")
        }
        _ => format!("`{name}` is one of {choice}"),
    };
    Err(error(value, message))
}

pub(super) fn name(argument: &Argument) -> syn::Result<Ident> {
    let Argument { name, value } = argument;
    if let Expr::Path(path) = value
        && let Some(ident) = path.path.get_ident()
        && ident != "self"
        && ident != "Self"
    {
        return Ok(ident.clone());
    }
    let message = match text(value).map(LitStr::value) {
        Some(text) if syn::parse_str::<Ident>(&text).is_ok() => {
            format!("`{name}` is the name of a variable: write `{name} = {text}`, without quotes")
        }
        _ => {
            format!("`{name}` is the name of a variable that the body sees: write `{name} = lock`")
        }
    };
    Err(error(value, message))
}

/// The name of the argument that is the caller's transaction.
pub(super) fn transaction(argument: &Argument) -> syn::Result<Ident> {
    let Argument { name, value } = argument;
    let named = match value {
        Expr::Path(path) => path.path.get_ident().filter(|ident| *ident != "self"),
        _ => None,
    };
    if let Some(ident) = named {
        return Ok(ident.clone());
    }
    let written = match value {
        Expr::Lit(_) => text(value).map(LitStr::value),
        Expr::Reference(reference) => borrowed_name(&reference.expr),
        _ => None,
    };
    let written = written.filter(|text| syn::parse_str::<Ident>(text).is_ok());
    let write = match written {
        Some(text) => format!("write `{name} = {text}`, the name alone"),
        None => format!(
            "write `{name} = tx` for an argument `tx: &mut sqlx::Transaction<'_, Postgres>`"
        ),
    };
    Err(error(value, format!("`{name}` is the name of an argument: {write}")))
}

/// `tx` of `&mut tx` and `&mut *tx`.
fn borrowed_name(value: &Expr) -> Option<String> {
    match value {
        Expr::Unary(unary) => borrowed_name(&unary.expr),
        Expr::Path(path) => path.path.get_ident().map(Ident::to_string),
        _ => None,
    }
}

pub(super) fn path(argument: &Argument, example: &str) -> syn::Result<ExprPath> {
    let Argument { name, value } = argument;
    let what = match &*name.to_string() {
        "crate" => "the path of the runtime crate",
        _ => "the path of a function `fn(LockError) -> E`",
    };
    match value {
        Expr::Path(path) => Ok(path.clone()),
        _ if text(value).is_some() => Err(error(
            value,
            format!("`{name}` is {what}: write it without quotes, such as {example}"),
        )),
        _ => Err(error(value, format!("`{name}` is {what}, such as {example}"))),
    }
}

/// A string literal, or an error that says what to write.
pub(super) fn string(value: &Expr, what: &str, example: &str) -> syn::Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) if literal.suffix().is_empty() => {
            Ok(literal.clone())
        }
        Expr::Path(path) if path.path.get_ident().is_some() => {
            let name = path.path.get_ident().map(Ident::to_string).unwrap_or_default();
            Err(error(value, format!("{what}: did you mean \"{name}\", in quotes?")))
        }
        _ => Err(error(value, format!("{what}: write a string, such as {example}"))),
    }
}

/// The expression inside the invisible delimiters that a `macro_rules!` fragment leaves.
pub(super) fn ungrouped(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => ungrouped(&group.expr),
        value => value,
    }
}

fn text(value: &Expr) -> Option<&LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) => Some(literal),
        _ => None,
    }
}

fn error(at: &impl quote::ToTokens, message: impl std::fmt::Display) -> syn::Error {
    syn::Error::new_spanned(at, message)
}
