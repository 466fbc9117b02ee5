//! Generates the call that locks a row in the caller's transaction, followed by the body.
//!
//! The lock outlives the function, so nothing has to supervise the body: it is part of the
//! function's own future.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote_spanned;

use super::{Parts, error, if_busy, key, result, runtime, unpacked};
use crate::options::Keys;
use crate::signature::at;

/// The key, the call that locks it, and the body.
pub(super) fn call(
    transaction: &Ident,
    body: &TokenStream,
    braces: Span,
    parts: &Parts<'_>,
) -> TokenStream {
    let mixed = Span::mixed_site();
    let Parts { function, options, .. } = parts;
    let keys = match parts.keys {
        Keys::One(one) => key::key(one, parts),
        Keys::All(all) => {
            let keys = all.iter().map(|each| key::key(each, parts));
            quote_spanned!(mixed=> [#(#keys),*])
        }
    };
    // Errors about the output are reported at the return type, errors about the transaction at its
    // name in the attribute.
    let output = at(&function.returns.output());
    let called = runtime(options, output);
    let lock = quote_spanned!(output=> #called::run_row);
    let if_busy = if_busy(options, output);
    let here = transaction.span().resolved_at(mixed);
    let seen = function.transaction(transaction).map_or(here, Ident::span);
    let variable = Ident::new(&transaction.to_string(), seen.located_at(transaction.span()));
    let asked = runtime(options, here);
    let transaction = quote_spanned!(here=> #asked::transaction(&mut *#variable));
    let error = error(parts);
    let bound = options.guard.as_ref().map(|name| quote_spanned!(mixed=> let #name = &lock;));
    let bound = bound.unwrap_or_else(|| quote_spanned!(mixed=> let _ = lock;));
    let unpacked = unpacked(function);
    let result = result(body, braces, parts);
    quote_spanned! {mixed=>
        let keys = #keys;
        let error = #error;
        let lock = match #lock(site, keys, error, #if_busy, #transaction).await {
            ::core::result::Result::Ok(lock) => lock,
            ::core::result::Result::Err(output) => return output,
        };
        #bound
        #unpacked
        #result
    }
}
