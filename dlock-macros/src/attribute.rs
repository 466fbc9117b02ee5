//! Parses and checks the attribute and its item, and expands them to code.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Attribute;

use crate::diagnostic::Errors;
use crate::expand::{self, Parts};
use crate::item::{FunctionItem, Item};
use crate::options::{self, Keys, Options};
use crate::scope::Scope;
use crate::signature::Function;

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = options::parse(arguments, &mut errors);
    match syn::parse2(item.clone()) {
        Ok(Item::Function(mut function)) => {
            only_once(&mut function.attributes, &mut errors);
            annotated(&function, &options, errors)
        }
        Ok(Item::Bodiless(signature)) => {
            // A misplaced attribute makes its options irrelevant, so their mistakes are not
            // reported.
            let name = &signature.ident;
            let message = format!(
                "`{name}` has no body to lock: put the attribute on its implementations, or give it a default body"
            );
            error_beside(&syn::Error::new(name.span(), message), item)
        }
        Ok(Item::Other(what, span)) => {
            let message = format!(
                "`#[distributed_lock]` locks an async function, not {what}: put it on each function that must not run twice at once"
            );
            error_beside(&syn::Error::new(span, message), item)
        }
        Err(error) => error_beside(&error, item),
    }
}

fn annotated(item: &FunctionItem, options: &Options, mut errors: Errors) -> TokenStream {
    let function = Function::new(&item.signature, &item.body);
    let scope = Scope::of(&function);
    function.check(options, &mut errors);
    if let Some(keys) = &options.keys {
        scope.check(keys, &mut errors);
    }
    match &options.keys {
        Some(keys) if errors.is_empty() => {
            expand::function(item, &Parts { function: &function, options, keys, scope: &scope })
        }
        _ => {
            let errors = errors.into_compile_errors();
            let guard = options.guard.as_ref().filter(|guard| !function.has_argument(guard));
            let item = without_lock(item, guard, options);
            quote!(#errors #item)
        }
    }
}

/// Reports a second attribute. One function has one lock site: a second attribute would lock inside
/// the first lock, in an order that another function may reverse.
fn only_once(attributes: &mut Vec<Attribute>, errors: &mut Errors) {
    attributes.retain(|attribute| {
        let last = attribute.path().segments.last();
        let again = last.is_some_and(|segment| segment.ident == "distributed_lock");
        if again {
            let message = "`#[distributed_lock]` is written twice on this function: to take several locks write one with `keys = [\"…\", \"…\"]`, which cannot deadlock";
            errors.add(syn::Error::new_spanned(attribute, message));
        }
        !again
    });
}

/// The function as the user wrote it, so that a mistake in the attribute does not cause further
/// errors in the body or at the callers.
fn without_lock(item: &FunctionItem, guard: Option<&Ident>, options: &Options) -> TokenStream {
    let FunctionItem { attributes, visibility, signature, body } = item;
    let span = Span::mixed_site();
    let tokens = &body.tokens;
    // The guard's name only has to resolve: this code never runs.
    let guard = guard.map(|guard| {
        let runtime = expand::runtime(options, span);
        let all = matches!(options.keys, Some(Keys::All(_)));
        let held = match (all, options.transaction.is_some()) {
            (false, false) => "LockGuard",
            (true, false) => "LockSet",
            (false, true) => "RowLock",
            (true, true) => "RowLocks",
        };
        let held = Ident::new(held, span);
        quote_spanned!(span=> let #guard: &#runtime::#held = ::core::panic!();)
    });
    // Keeps the compiler from reporting an argument that only the key uses as unused.
    quote_spanned! {span=>
        #(#attributes)*
        #[allow(unreachable_code, unused_variables)]
        #visibility #signature { #guard #tokens }
    }
}

fn error_beside(error: &syn::Error, item: &TokenStream) -> TokenStream {
    let error = error.to_compile_error();
    quote!(#error #item)
}
