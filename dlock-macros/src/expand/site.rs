//! The lock site: a static that is known to the registry before any call.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::Signature;
use syn::ext::IdentExt;

use super::{Parts, runtime};
use crate::options::{Key, Mode, OnBusy, OnLost, Options, Wait};

/// `let site = …`, a reference to the static.
pub(super) fn site(signature: &Signature, parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let Parts { options, keys, .. } = parts;
    let runtime = &runtime(options, mixed);
    let name = signature.ident.unraw().to_string();
    let keys = keys.as_slice().iter().map(template);
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
            )#options;
            #runtime::inventory::submit! { &SITE }
            &SITE
        };
    }
}

/// The key as the registry lists it: a template as it is written, an expression in braces.
fn template(key: &Key) -> String {
    match key {
        Key::Template { literal, .. } => literal.value(),
        Key::Expression(expression) => format!("{{{}}}", expression.to_token_stream()),
    }
}

/// The builder calls of the options that are written; the others are the runtime's to choose.
fn written(options: &Options, runtime: &TokenStream) -> TokenStream {
    let mixed = Span::mixed_site();
    let mut calls = TokenStream::new();
    let mut call = |name: &str, argument: TokenStream| {
        let name = Ident::new(name, mixed);
        calls.extend(quote_spanned!(mixed=> .#name(#argument)));
    };
    let duration = |duration: Duration| {
        let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
        quote_spanned!(mixed=> #runtime::Duration::new(#seconds, #nanoseconds))
    };
    if let Some(name) = &options.backend {
        call("backend", name.to_token_stream());
    }
    if let Some(ttl) = options.ttl {
        call("ttl", duration(ttl));
    }
    match options.wait {
        Some(Wait::UpTo(limit)) => call("wait", duration(limit)),
        Some(Wait::Forever) => call("wait_forever", TokenStream::new()),
        None => {}
    }
    if let Some(renew) = options.renew {
        call("renew", renew.to_token_stream());
    }
    if let Some(limit) = options.max_hold {
        call("max_hold", duration(limit));
    }
    if let Some(least) = options.min_hold {
        call("min_hold", duration(least));
    }
    if let Some((OnBusy::Skip, _)) = options.on_busy {
        call("skip_if_busy", TokenStream::new());
    }
    if let Some(policy) = options.on_lost {
        let policy = match policy {
            OnLost::Cancel => "Cancel",
            OnLost::Finish => "Finish",
            OnLost::Keep => "Keep",
        };
        let policy = Ident::new(policy, mixed);
        call("on_lost", quote_spanned!(mixed=> #runtime::OnLost::#policy));
    }
    if options.mode == Some(Mode::Shared) {
        call("shared", TokenStream::new());
    }
    if let Some(permits) = options.permits {
        call("permits", permits.get().to_token_stream());
    }
    if let Some(fair) = options.fair {
        call("fair", fair.to_token_stream());
    }
    if options.transaction.is_some() {
        call("in_transaction", TokenStream::new());
    }
    if let Some(reentrant) = options.reentrant {
        call("reentrant", reentrant.to_token_stream());
    }
    calls
}
