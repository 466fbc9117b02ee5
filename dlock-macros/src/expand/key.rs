//! Generates the code that builds a key.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::LitStr;
use syn::spanned::Spanned;

use super::{Parts, runtime};
use crate::options::{Key, Keys};
use crate::scope::new_ident;
use crate::signature::async_trait;
use crate::template::{Piece, Placeholder, Step};

/// An expression of the key's type, evaluated when the future is first polled.
pub(super) fn key(key: &Key, parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let views = views(parts);
    let made = match key {
        Key::Template { literal, pieces } => template(literal, pieces, parts),
        Key::Expression(expression) => {
            let span = mixed.located_at(expression.span());
            let runtime = runtime(parts.options, span);
            quote_spanned!(span=> let key = #runtime::key_from(#expression);)
        }
    };
    // A variable, not a tail expression, so that temporaries of the values are dropped before what
    // they borrow.
    quote_spanned!(mixed=> { #views #made key })
}

/// The names that the keys mention.
pub(super) fn names(keys: &Keys) -> Vec<String> {
    let of = |key: &Key| match key {
        Key::Template { pieces, .. } => pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Value(placeholder) => Some(placeholder.root.clone()),
                Piece::Literal(_) => None,
            })
            .collect(),
        Key::Expression(expression) => {
            let idents = async_trait::idents(expression.to_token_stream());
            idents.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
    };
    keys.as_slice().iter().flat_map(of).collect()
}

/// Binds by reference the arguments that are only destructured in the body.
fn views(parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let views = parts.function.arguments.iter().filter_map(|argument| {
        let (pattern, variable) = argument.viewed.as_ref()?;
        let conditions = &argument.conditions;
        Some(quote_spanned! {mixed=>
            #(#conditions)*
            #[allow(
                unused_variables,
                clippy::needless_borrowed_reference,
                clippy::ref_binding_to_reference
            )]
            let #pattern = #variable;
        })
    });
    views.collect()
}

fn template(literal: &LitStr, pieces: &[Piece], parts: &Parts<'_>) -> TokenStream {
    let span = Span::mixed_site().located_at(literal.span());
    let runtime = runtime(parts.options, span);
    let root = |placeholder: &Placeholder| parts.scope.root(placeholder, literal.span());
    written(literal, pieces, &runtime, root)
}

/// `let key = …;` for a template whose names are in scope.
pub(crate) fn written(
    literal: &LitStr,
    pieces: &[Piece],
    runtime: &TokenStream,
    root: impl Fn(&Placeholder) -> Ident,
) -> TokenStream {
    // The literal's location, so that the compiler reports errors about a value there.
    let span = Span::mixed_site().located_at(literal.span());
    let mut writer = quote_spanned!(span=> #runtime::key());
    for piece in pieces {
        match piece {
            Piece::Literal(text) => writer.extend(quote_spanned!(span=> .literal(#text))),
            Piece::Value(placeholder) => {
                let text = &placeholder.text;
                let value = value(placeholder, &root(placeholder), span);
                writer.extend(quote_spanned!(span=> .value(#text, #value)));
            }
        }
    }
    let lint = underscored(pieces)
        .then(|| quote_spanned!(span=> #[allow(clippy::used_underscore_binding)]));
    quote_spanned!(span=> #lint let key = #writer.finish();)
}

fn underscored(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| match piece {
        Piece::Value(placeholder) => placeholder.root.starts_with('_'),
        Piece::Literal(_) => false,
    })
}

/// A reference to a placeholder's value. Every step starts from a shared reference, so a method
/// that would consume or mutate the argument does not compile.
fn value(placeholder: &Placeholder, root: &Ident, span: Span) -> TokenStream {
    if placeholder.steps.is_empty() {
        return quote_spanned!(span=> &#root);
    }
    let steps = placeholder.steps.iter().map(|step| match step {
        Step::Field(name) => {
            let name = new_ident(name, span);
            quote_spanned!(span=> .#name)
        }
        Step::Index(index) => {
            let mut index = Literal::u32_unsuffixed(*index);
            index.set_span(span);
            quote_spanned!(span=> .#index)
        }
        Step::Method(name) => {
            let name = new_ident(name, span);
            quote_spanned!(span=> .#name())
        }
    });
    quote_spanned!(span=> &(&#root) #(#steps)*)
}
