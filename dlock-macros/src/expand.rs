//! Expands an annotated function into one call of the runtime.
//!
//! All generated code has mixed-site hygiene: local variables of the expansion and of the user
//! cannot see each other. Items are not hygienic, so each item of the expansion is in a block of
//! its own.

use proc_macro2::{Group, Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::FnArg;

use crate::item::FunctionItem;
use crate::options::{Keys, Options};
use crate::scope::Scope;
use crate::signature::{Function, Shape, async_trait, at};

pub(crate) mod key;
mod row_lock;
mod site;

/// The inputs that every part of the expansion needs.
pub(crate) struct Parts<'a> {
    pub(crate) function: &'a Function<'a>,
    pub(crate) options: &'a Options,
    pub(crate) keys: &'a Keys,
    pub(crate) scope: &'a Scope,
}

/// The path of the runtime's private module, with the span at which the compiler reports errors
/// about it.
pub(crate) fn runtime(options: &Options, at: Span) -> TokenStream {
    let path = options.krate.as_ref().map(ToTokens::to_token_stream);
    let path = path.unwrap_or_else(|| quote_spanned!(at=> ::dlock_runtime));
    quote_spanned!(at=> #path::__private)
}

/// Expands the annotated function.
pub(crate) fn function(item: &FunctionItem, parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let FunctionItem { attributes, visibility, signature, body } = item;
    let mut signature = signature.clone();
    let arguments = signature.inputs.iter_mut().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    });
    for (typed, argument) in arguments.zip(&parts.function.arguments) {
        if let Some(pattern) = &argument.replaced {
            *typed.pat = pattern.clone();
        }
    }

    let site = site::site(&signature, parts);
    let braces = body.brace.span.join();
    let call = match &parts.options.transaction {
        Some(transaction) => row_lock::call(transaction, &body.tokens, braces, parts),
        None => call(&body.tokens, braces, parts),
    };
    // The site is a statement outside the future. Without it, clippy would suggest `async fn` for a
    // function whose body is just an async block. The future remains the last expression, because
    // that is how `tracing::instrument` recognizes such functions.
    let statements = match parts.function.returns.shape {
        Shape::Async => quote_spanned!(mixed=> #site #call),
        Shape::Future => quote_spanned!(mixed=> #site async move { #call }),
        Shape::Boxed | Shape::Blocking => {
            quote_spanned!(mixed=> #site ::std::boxed::Box::pin(async move { #call }))
        }
    };
    quote_spanned!(mixed=> #(#attributes)* #visibility #signature { #statements })
}

/// The key, the body as a future that has not been polled, and the call that locks the key and
/// polls the body.
fn call(body: &TokenStream, braces: Span, parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let Parts { function, options, .. } = parts;
    let runtime = runtime(options, mixed);
    let (keys, held) = match parts.keys {
        Keys::One(one) => (key::key(one, parts), "LockGuard"),
        Keys::All(all) => {
            let keys = all.iter().map(|each| key::key(each, parts));
            (quote_spanned!(mixed=> [#(#keys),*]), "LockSet")
        }
    };
    let held = Ident::new(held, mixed);
    let (slot, guard) = if options.guard.is_some() {
        (
            Some(quote_spanned! {mixed=>
                let slot = #runtime::GuardSlot::<#runtime::#held>::new();
                let slot = &slot;
            }),
            quote_spanned!(mixed=> ::core::option::Option::Some(slot)),
        )
    } else {
        (None, quote_spanned!(mixed=> ::core::option::Option::None))
    };
    // Errors about the output type are reported at the return type.
    let output = at(&function.returns.output());
    let called = self::runtime(options, output);
    let if_busy = if_busy(options, output);
    let run =
        quote_spanned!(output=> #called::run(site, keys, #guard, error, #if_busy, body).await);
    let error = error(parts);
    let captured = captured(function);
    let bound_guard =
        options.guard.as_ref().map(|name| quote_spanned!(mixed=> let #name = slot.get();));
    let unpacked = unpacked(function);
    let result = result(body, braces, parts);
    quote_spanned! {mixed=>
        let keys = #keys;
        #slot
        let error = #error;
        let body = ::core::pin::pin!(::core::option::Option::Some(async move {
            #captured
            #bound_guard
            #unpacked
            #result
        }));
        #run
    }
}

/// What the function does when the lock is busy. Only this code requires a value to return for a
/// skipped body.
fn if_busy(options: &Options, output: Span) -> TokenStream {
    let runtime = runtime(options, output);
    if options.skips_if_busy() {
        quote_spanned!(output=> #runtime::or_skip)
    } else {
        quote_spanned!(output=> #runtime::or_error)
    }
}

/// How a lock error is converted to the function's error type. Only this code requires the
/// conversion, and errors about it are reported at the return type.
fn error(parts: &Parts<'_>) -> TokenStream {
    let Parts { function, options, .. } = parts;
    let witness = function.returns.witness();
    let span = at(&witness);
    let runtime = runtime(options, span);
    if let Some(map) = &options.map_err {
        quote_spanned!(span=> #runtime::map_error::<#witness>(#map))
    } else {
        quote_spanned!(span=> #runtime::error::<#witness>())
    }
}

/// Moves every argument and `self` whole into the body, whether or not the body uses them, so that
/// they are dropped before the lock is released.
fn captured(function: &Function<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let receiver = function.receiver().map(|receiver| quote_spanned!(mixed=> let _ = &#receiver;));
    let arguments = function.arguments.iter().flat_map(|argument| {
        let conditions = &argument.conditions;
        argument.variables.iter().map(move |variable| {
            let lint = variable
                .to_string()
                .starts_with('_')
                .then(|| quote_spanned!(mixed=> #[allow(clippy::used_underscore_binding)]));
            quote_spanned!(mixed=> #(#conditions)* #lint let _ = &#variable;)
        })
    });
    quote_spanned!(mixed=> #receiver #(#arguments)*)
}

fn unpacked(function: &Function<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let unpacked = function.arguments.iter().filter_map(|argument| {
        let (pattern, variable) = argument.unpacked.as_ref()?;
        let conditions = &argument.conditions;
        Some(quote_spanned!(mixed=> #(#conditions)* let #pattern = #variable;))
    });
    unpacked.collect()
}

/// The user's body, with its return type known to type inference from the start.
fn result(body: &TokenStream, braces: Span, parts: &Parts<'_>) -> TokenStream {
    let mixed = Span::mixed_site();
    let function = parts.function;
    let mut body = body.clone();
    if async_trait::rewrote(function.signature) {
        body = async_trait::mention(body, &mut key::names(parts.keys));
    }
    // The braces have the user's location but the expansion's hygiene, so that the lint about
    // unnecessary braces does not fire.
    let mut block = Group::new(proc_macro2::Delimiter::Brace, body);
    block.set_span(mixed.located_at(braces));
    let block = block.to_token_stream();
    let output = function.returns.output();
    match function.returns.shape {
        Shape::Async => quote_spanned! {mixed=>
            if let ::core::option::Option::Some(result) = ::core::option::Option::None::<#output> {
                return result;
            }
            #[allow(clippy::diverging_sub_expression)]
            let result: #output = #block;
            #[allow(unreachable_code)]
            result
        },
        Shape::Future => quote_spanned! {mixed=>
            let expect = {
                fn expect<R, F, B>(body: B) -> F
                where
                    F: ::core::future::Future<Output = R>,
                    B: ::core::ops::FnOnce() -> F,
                {
                    body()
                }
                expect::<#output, _, _>
            };
            expect(move || #block).await
        },
        Shape::Boxed | Shape::Blocking => {
            let boxed = function.returns.boxed();
            quote_spanned!(mixed=> (move || -> #boxed #block)().await)
        }
    }
}
