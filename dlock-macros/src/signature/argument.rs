//! One argument: the names it binds, and how it moves whole into the body.

use proc_macro2::{Ident, Span};
use quote::format_ident;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Pat, PatIdent, PatParen, PatType, Token, token};

use super::async_trait;
use super::returns::{Returns, Shape};
use crate::item::Body;

/// An argument of the function.
pub(crate) struct Argument {
    /// `#[cfg(…)]` of the argument. All code that mentions it gets the same condition.
    pub(crate) conditions: Vec<Attribute>,
    /// The names that the key may use.
    pub(crate) names: Vec<Ident>,
    /// The variables of the signature that move into the body.
    pub(crate) variables: Vec<Ident>,
    /// The pattern that replaces the user's in the signature, if the argument would not move whole.
    pub(crate) replaced: Option<Pat>,
    /// `let pattern = variable`, in the body.
    pub(crate) unpacked: Option<(Pat, Ident)>,
    /// The same by reference, where the key is built.
    pub(crate) viewed: Option<(Pat, Ident)>,
}

impl Argument {
    pub(super) fn new(number: usize, typed: &PatType, returns: &Returns, body: &Body) -> Self {
        let mut bindings = Bindings::default();
        bindings.visit_pat(&typed.pat);
        let Bindings { names, partial } = bindings;
        let conditions =
            typed.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned();
        let mut argument = Self {
            conditions: conditions.collect(),
            variables: names.clone(),
            names,
            replaced: None,
            unpacked: None,
            viewed: None,
        };
        if partial {
            argument.take_whole(number, &typed.pat);
        } else if returns.shape == Shape::Boxed {
            argument.look_into_async_trait(&typed.pat, body);
        }
        argument
    }

    /// Gives the whole argument a name and destructures it inside the body. With a pattern that
    /// ignores or borrows a part of its value, that part would stay in the function's own frame and
    /// be dropped after the lock is released.
    fn take_whole(&mut self, number: usize, pattern: &Pat) {
        let name = format_ident!("argument_{number}", span = Span::mixed_site());
        self.replaced = Some(named(&name));
        if !matches!(pattern, Pat::Wild(_)) {
            self.unpacked = Some((pattern.clone(), name.clone()));
            self.viewed = Some((by_reference(pattern), name.clone()));
        }
        self.variables = vec![name];
    }

    /// Finds the pattern that the user wrote. `#[async_trait]` runs first: it renames a
    /// destructured argument to `__arg1` and moves the pattern into the body.
    fn look_into_async_trait(&mut self, pattern: &Pat, body: &Body) {
        if let Pat::Ident(PatIdent { ident, .. }) = pattern
            && let Some(pattern) = async_trait::pattern_of(ident, body)
        {
            let mut bindings = Bindings::default();
            bindings.visit_pat(&pattern);
            self.names = bindings.names;
            self.viewed = Some((by_reference(&pattern), ident.clone()));
        }
    }
}

/// A pattern that only names its value. The parentheses keep `tracing::instrument` from recording
/// it.
fn named(name: &Ident) -> Pat {
    let ident = PatIdent {
        attrs: vec![],
        by_ref: None,
        mutability: None,
        ident: name.clone(),
        subpat: None,
    };
    let paren_token = token::Paren(Span::mixed_site());
    Pat::Paren(PatParen { attrs: vec![], paren_token, pat: Box::new(Pat::Ident(ident)) })
}

/// The same names, bound by reference, so that matching moves nothing.
fn by_reference(pattern: &Pat) -> Pat {
    struct ByReference;
    impl VisitMut for ByReference {
        fn visit_pat_ident_mut(&mut self, binding: &mut PatIdent) {
            binding.mutability = None;
            binding.by_ref = Some(Token![ref](binding.ident.span()));
            visit_mut::visit_pat_ident_mut(self, binding);
        }
    }
    let mut pattern = pattern.clone();
    ByReference.visit_pat_mut(&mut pattern);
    pattern
}

/// The names that a pattern binds.
#[derive(Default)]
struct Bindings {
    names: Vec<Ident>,
    /// Whether it leaves a part of the value unbound, or only borrows it.
    partial: bool,
}

impl<'ast> Visit<'ast> for Bindings {
    fn visit_pat(&mut self, pattern: &'ast Pat) {
        match pattern {
            Pat::Wild(_) | Pat::Rest(_) => self.partial = true,
            Pat::Struct(fields) => self.partial |= fields.rest.is_some(),
            Pat::Ident(binding) => {
                self.partial |= binding.by_ref.is_some() || binding.subpat.is_some();
                self.names.push(binding.ident.clone());
            }
            _ => {}
        }
        visit::visit_pat(self, pattern);
    }
}
