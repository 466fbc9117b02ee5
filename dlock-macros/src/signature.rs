//! The annotated function: its form, its return type and its arguments.

use proc_macro2::{Ident, Span};
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{FnArg, Safety, Signature, Type};

use crate::diagnostic::Errors;
use crate::item::Body;
use crate::options::{OnBusy, Options};

mod argument;
pub(crate) mod async_trait;
mod returns;
mod transaction;

pub(crate) use argument::Argument;
pub(crate) use returns::{Returns, Shape};

/// What the expansion needs to know about a function.
pub(crate) struct Function<'a> {
    pub(crate) signature: &'a Signature,
    /// All arguments except the receiver.
    pub(crate) arguments: Vec<Argument>,
    pub(crate) returns: Returns,
}

impl<'a> Function<'a> {
    pub(crate) fn new(signature: &'a Signature, body: &Body) -> Self {
        let returns = Returns::of(signature);
        let arguments = signature
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(number, input)| match input {
                FnArg::Receiver(_) => None,
                FnArg::Typed(typed) => Some(Argument::new(number, typed, &returns, body)),
            })
            .collect();
        Self { signature, arguments, returns }
    }

    /// The receiver's own token.
    pub(crate) fn receiver(&self) -> Option<Ident> {
        let receiver = self.signature.receiver()?;
        Some(Ident::new("self", receiver.self_token.span))
    }

    /// Reports everything that makes it impossible to lock this function.
    pub(crate) fn check(&self, options: &Options, errors: &mut Errors) {
        self.check_qualifiers(errors);
        self.returns.check(self.signature, errors);
        if let Some((OnBusy::Skip, span)) = options.on_busy {
            self.returns.check_skip(span, errors);
        }
        self.check_transactions(options, errors);
        if let Some(guard) = &options.guard
            && self.has_argument(guard)
        {
            errors.push(
                guard.span(),
                format!(
                    "`guard = {guard}` would hide the argument `{guard}`: give the guard another name"
                ),
            );
        }
    }

    pub(crate) fn has_argument(&self, name: &Ident) -> bool {
        self.arguments.iter().flat_map(|argument| &argument.names).any(|known| known == name)
    }

    fn check_qualifiers(&self, errors: &mut Errors) {
        let signature = self.signature;
        if let Some(constant) = &signature.constness {
            errors.push(
                constant.span(),
                "a `const fn` cannot wait for a lock: make it an `async fn`",
            );
        }
        if let Safety::Unsafe(token) = &signature.safety {
            errors.push(token.span(), "an `unsafe fn` cannot be locked: lock a safe function and write `unsafe { … }` in its body");
        }
        if let Some(abi) = &signature.abi {
            errors.push(
                abi.span(),
                "an `extern` function cannot be locked: lock an `async fn` and call it from there",
            );
        }
    }
}

/// The span of a type, for compiler messages about it.
pub(crate) fn at(ty: &Type) -> Span {
    let first = ty.span();
    first.resolved_at(Span::mixed_site())
}

/// The output of a future type.
pub(crate) fn output_of(future: &Type) -> Type {
    let span = at(future);
    Type::Verbatim(quote_spanned!(span=> <#future as ::core::future::Future>::Output))
}
