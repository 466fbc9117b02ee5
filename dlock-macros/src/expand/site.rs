//! Generates the lock site: a static that the registry knows before any call.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::Signature;
use syn::ext::IdentExt;

use super::{Parts, runtime};
use crate::options::{Key, OPTIONS, Options};

/// `let site = …`, a reference to the static.
pub(super) fn site(signature: &Signature, parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let Parts { options, keys, .. } = parts;
    let runtime = &runtime(options, mixed);
    let name = signature.ident.unraw().to_string();
    let keys = keys.as_slice().iter().map(template);
    let in_transaction = options.transaction.is_some();
    let options = written(options, runtime);
    quote_spanned! {mixed=>
        let site: &'static #runtime::Site = {
            static SITE: #runtime::Site = #runtime::Site::new(
                ::core::module_path!(),
                ::core::file!(),
                ::core::line!(),
                #name,
                ::core::concat!(::core::module_path!(), "::", #name),
                &[#(#keys),*],
                #in_transaction,
                #options,
            );
            #runtime::inventory::submit! { &SITE }
            &SITE
        };
    }
}

/// The key as the registry lists it: a template as written, an expression in braces.
fn template(key: &Key) -> String {
    match key {
        Key::Template { literal, .. } => literal.value(),
        Key::Expression(expression) => format!("{{{}}}", expression.to_token_stream()),
    }
}

/// The runtime's options as a literal. It sets only the options that are written, and leaves the
/// defaults to the runtime.
fn written(options: &Options, runtime: &TokenStream) -> TokenStream {
    let mixed = Span::mixed_site();
    let fields = OPTIONS.iter().filter_map(|option| {
        let (name, value) = option.field?;
        let (name, value) = (Ident::new(name, mixed), value(options, runtime)?);
        Some(quote_spanned!(mixed=> #name: #value))
    });
    quote_spanned! {mixed=>
        #runtime::LockOptions { #(#fields,)* ..#runtime::LockOptions::DEFAULT }
    }
}
