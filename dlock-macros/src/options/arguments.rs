//! `name = value` pairs, read so that one mistake does not hide the next.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, Ident, Lit, Token};

use super::value::ungrouped;
use crate::diagnostic::{Errors, list, nearest};

/// Every option and an example of its value.
const KNOWN: [(&str, &str); 19] = [
    ("key", "\"product:<id>\""),
    ("keys", "[\"account:<from>\", \"account:<to>\"]"),
    ("ttl", "\"5s\""),
    ("wait", "\"2s\""),
    ("backend", "\"redis\""),
    ("mode", "\"shared\""),
    ("permits", "5"),
    ("fair", "true"),
    ("renew", "true"),
    ("max_hold", "\"1m\""),
    ("min_hold", "\"30s\""),
    ("on_busy", "\"skip\""),
    ("on_lost", "\"cancel\""),
    ("reentrant", "true"),
    ("guard", "lock"),
    ("transaction", "tx"),
    ("unlock_before_commit", "true"),
    ("map_err", "path::to::function"),
    ("crate", "::dlock_runtime"),
];

/// Words that other libraries use.
const FOREIGN: [(&str, &str); 18] = [
    ("name", "key"),
    ("lease", "ttl"),
    ("lease_time", "ttl"),
    ("expire", "ttl"),
    ("expiry", "ttl"),
    ("timeout", "wait"),
    ("wait_time", "wait"),
    ("watchdog", "renew"),
    ("store", "backend"),
    ("token", "guard"),
    ("tx", "transaction"),
    ("lock_at_most_for", "max_hold"),
    ("lock_at_least_for", "min_hold"),
    ("lock_type", "mode"),
    ("shared", "mode"),
    ("count", "permits"),
    ("limit", "permits"),
    ("fifo", "fair"),
];

/// One option as it is written.
pub(super) struct Argument {
    pub(super) name: Ident,
    pub(super) value: Expr,
}

/// What stands in the brackets.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) read: Vec<Argument>,
    /// Was there something that could not be read? It may have been any option.
    pub(super) unreadable: bool,
}

/// Reads all arguments with known names; unknown ones, duplicates and what cannot be read are
/// reported.
pub(super) fn parse(arguments: TokenStream, errors: &mut Errors) -> Arguments {
    let Arguments { mut read, mut unreadable } = Arguments::default();
    let parser = |input: ParseStream<'_>| {
        while !input.is_empty() {
            match argument(input) {
                Ok(argument) => accept(argument, &mut read, errors),
                Err(error) => {
                    unreadable = true;
                    errors.add(error);
                    skip(input);
                }
            }
            if !(input.is_empty() || input.peek(Token![,])) {
                errors.push(input.span(), "a `,` is missing between two options");
                if !at_argument(input) {
                    skip(input);
                }
            }
            let _: Option<Token![,]> = input.parse()?;
        }
        Ok(())
    };
    if let Err(error) = parser.parse2(arguments) {
        errors.add(error);
    }
    Arguments { read, unreadable }
}

fn argument(input: ParseStream<'_>) -> syn::Result<Argument> {
    if let Ok(literal) = input.fork().parse::<Lit>() {
        let message = match literal {
            Lit::Str(text) => format!("an option has a name: write `key = \"{}\"`", text.value()),
            _ => "an option has a name, such as `key = \"product:<id>\"`".to_owned(),
        };
        return Err(input.error(message));
    }
    if !input.peek(Ident::peek_any) {
        return Err(input.error("an option is `name = value`, such as `key = \"product:<id>\"`"));
    }
    let name = input.call(Ident::parse_any)?;
    let text = name.to_string();
    let example =
        KNOWN.iter().find(|(known, _)| *known == text).map_or("…", |(_, example)| example);
    let needs_value = || format!("`{name}` needs a value: write `{name} = {example}`");
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new(name.span(), needs_value()));
    }
    if input.parse::<Token![=]>().is_err() {
        return Err(input.error(format!("a `=` belongs here: write `{name} = {example}`")));
    }
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new(name.span(), needs_value()));
    }
    let value: Expr = input.parse().map_err(|error| {
        let mut here = syn::Error::new(
            error.span(),
            format!("{error}, in the value of `{name}`; such as `{name} = {example}`"),
        );
        if KNOWN.iter().all(|(known, _)| *known != text) {
            here.combine(unknown(&name));
        }
        here
    })?;
    Ok(Argument { name, value: ungrouped(&value).clone() })
}

fn accept(argument: Argument, read: &mut Vec<Argument>, errors: &mut Errors) {
    let name = &argument.name;
    if KNOWN.iter().all(|(known, _)| name != known) {
        errors.add(unknown(name));
        // Most likely it is the key that is misspelt: its absence is not a second mistake.
        if let Some(meant @ ("key" | "keys")) = meant(&name.to_string())
            && read.iter().all(|earlier| earlier.name != meant)
        {
            read.push(Argument { name: Ident::new(meant, name.span()), ..argument });
        }
    } else if read.iter().any(|earlier| earlier.name == *name) {
        errors.push(name.span(), format!("`{name}` is written twice: keep one"));
    } else {
        read.push(argument);
    }
}

fn unknown(name: &Ident) -> syn::Error {
    let known = KNOWN.map(|(known, _)| known);
    let hint = meant(&name.to_string()).map(|meant| format!(": did you mean `{meant}`?"));
    let hint = hint.unwrap_or_default();
    let message = format!("there is no option `{name}`{hint}\n\nthe options are {}", list(&known));
    syn::Error::new(name.span(), message)
}

fn meant(name: &str) -> Option<&'static str> {
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == name).map(|(_, ours)| *ours);
    foreign.or_else(|| nearest(name, &KNOWN.map(|(known, _)| known)))
}

/// Moves to the next comma that is not in brackets, or to the beginning of the next option.
fn skip(input: ParseStream<'_>) {
    while !(input.is_empty() || input.peek(Token![,])) {
        if input.parse::<proc_macro2::TokenTree>().is_err() || at_argument(input) {
            return;
        }
    }
}

fn at_argument(input: ParseStream<'_>) -> bool {
    input.peek(Ident::peek_any) && input.peek2(Token![=]) && !input.peek2(Token![==])
}
