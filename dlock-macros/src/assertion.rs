//! `assert_locked!`, for code that may only run under a lock.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Expr, ExprPath, LitStr, Token};

use crate::diagnostic::Errors;
use crate::expand::key::written;
use crate::scope::new_ident;
use crate::template::{self, Placeholder};

/// The arguments of the macro.
struct Assertion {
    key: Expr,
    shared: bool,
    krate: Option<ExprPath>,
}

impl Parse for Assertion {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            let message = "which lock? Write `assert_locked!(\"product:<id>\")`";
            return Err(syn::Error::new(Span::call_site(), message));
        }
        let mut assertion = Self { key: input.parse()?, shared: false, krate: None };
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            assertion.option(input)?;
        }
        Ok(assertion)
    }
}

impl Assertion {
    fn option(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let name = input.call(Ident::parse_any)?;
        input.parse::<Token![=]>()?;
        match &*name.to_string() {
            "mode" => {
                let word: LitStr = input.parse()?;
                self.shared = match &*word.value() {
                    "exclusive" => false,
                    "shared" => true,
                    _ => {
                        let message = "`mode` is one of \"exclusive\", \"shared\"";
                        return Err(syn::Error::new(word.span(), message));
                    }
                };
            }
            "crate" => self.krate = Some(input.parse()?),
            _ => {
                let message =
                    format!("there is no option `{name}`: the options are `mode` and `crate`");
                return Err(syn::Error::new(name.span(), message));
            }
        }
        Ok(())
    }

    fn code(&self) -> Result<TokenStream, Errors> {
        let mixed = Span::mixed_site();
        let krate = self.krate.as_ref().map(ToTokens::to_token_stream);
        let krate = krate.unwrap_or_else(|| quote_spanned!(mixed=> ::dlock_runtime));
        let runtime = quote_spanned!(mixed=> #krate::__private);
        let key = match &self.key {
            Expr::Lit(literal) => {
                let literal: LitStr =
                    syn::parse2(literal.to_token_stream()).map_err(Errors::from)?;
                let (pieces, faults) = template::parse(&literal.value());
                let mut errors = Errors::default();
                for fault in &faults {
                    errors.push_in(&literal, fault);
                }
                if !errors.is_empty() {
                    return Err(errors);
                }
                let root = |placeholder: &Placeholder| new_ident(&placeholder.root, literal.span());
                written(&literal, &pieces, &runtime, root)
            }
            expression => quote_spanned!(mixed=> let key = #runtime::key_from(#expression);),
        };
        let shared = self.shared;
        Ok(quote_spanned!(mixed=> { #key #runtime::assert_locked(key, #shared) }))
    }
}

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    let code = Assertion::parse.parse2(input).map_err(Errors::from);
    code.and_then(|assertion| assertion.code()).unwrap_or_else(Errors::into_compile_errors)
}
