//! Parses `name = value` pairs so that one mistake does not hide the next.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, Ident, Lit, Token};

use super::table::{self, OPTIONS};
use super::value::ungrouped;
use crate::diagnostic::{Errors, list, nearest};

/// One option as written.
pub(super) struct Argument {
    pub(super) name: Ident,
    pub(super) value: Expr,
}

/// All options of the attribute.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) read: Vec<Argument>,
    /// Whether some part could not be parsed. It may have been any option.
    pub(super) unreadable: bool,
}

/// Parses all arguments with known names. Reports unknown names, duplicates and anything that
/// cannot be parsed.
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
    let example = table::find(&text).map_or("…", |option| option.example);
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
        if table::find(&text).is_none() {
            here.combine(unknown(&name));
        }
        here
    })?;
    Ok(Argument { name, value: ungrouped(&value).clone() })
}

fn accept(argument: Argument, read: &mut Vec<Argument>, errors: &mut Errors) {
    let name = &argument.name;
    if table::find(&name.to_string()).is_none() {
        errors.add(unknown(name));
        // Most likely the key is misspelt, so its absence is not a second mistake.
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
    let hint = meant(&name.to_string()).map(|meant| format!(": did you mean `{meant}`?"));
    let hint = hint.unwrap_or_default();
    let message =
        format!("there is no option `{name}`{hint}\n\nthe options are {}", list(&table::names()));
    syn::Error::new(name.span(), message)
}

fn meant(name: &str) -> Option<&'static str> {
    let foreign = OPTIONS.iter().find(|option| option.foreign.contains(&name));
    foreign.map(|option| option.name).or_else(|| nearest(name, &table::names()))
}

/// Skips to the next comma outside brackets, or to the start of the next option.
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
