//! The names that a key template may use.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::{GenericParam, LitStr};

use crate::diagnostic::{Errors, Fault, distance, list};
use crate::options::{Key, Keys};
use crate::signature::Function;
use crate::template::{Piece, Placeholder};

/// What a placeholder begins with.
pub(crate) enum Root {
    /// An argument or `self`, which the key must only look at.
    Variable(Ident),
    /// A constant: every mention of it is a copy. A binding cannot have its name.
    Constant(Ident),
}

/// The names in scope where the key is made: arguments, `self`, const generics.
pub(crate) struct Scope {
    variables: Vec<Ident>,
    constants: Vec<Ident>,
    /// The receiver's own token: `self` resolves only with its hygiene.
    receiver: Option<Ident>,
}

impl Scope {
    pub(crate) fn of(function: &Function<'_>) -> Self {
        let variables = function.arguments.iter().flat_map(|argument| argument.names.clone());
        let generics = &function.signature.generics;
        let constants = generics.params.iter().filter_map(|parameter| match parameter {
            GenericParam::Const(constant) => Some(constant.ident.clone()),
            _ => None,
        });
        Self {
            variables: variables.collect(),
            constants: constants.collect(),
            receiver: function.receiver(),
        }
    }

    /// What a placeholder begins with, at the place of the literal it is written in.
    pub(crate) fn root(&self, placeholder: &Placeholder, literal: Span) -> Root {
        let root = &*placeholder.root;
        let there = |ident: Ident| {
            let span = ident.span().located_at(literal);
            new_ident(root, span)
        };
        if root == "self"
            && let Some(receiver) = &self.receiver
        {
            return Root::Variable(there(receiver.clone()));
        }
        if let Some(variable) = find(&self.variables, root) {
            return Root::Variable(there(variable.clone()));
        }
        let constant = find(&self.constants, root).cloned();
        Root::Constant(constant.map_or_else(|| new_ident(root, literal), there))
    }

    /// Reports every placeholder that begins with a name that is not there.
    pub(crate) fn check(&self, keys: &Keys, errors: &mut Errors) {
        for key in keys.as_slice() {
            if let Key::Template { literal, pieces } = key {
                for piece in pieces {
                    if let Piece::Value(placeholder) = piece {
                        self.check_placeholder(placeholder, literal, errors);
                    }
                }
            }
        }
    }

    fn check_placeholder(&self, placeholder: &Placeholder, literal: &LitStr, errors: &mut Errors) {
        let root = &*placeholder.root;
        let known = match root {
            "self" => self.receiver.is_some(),
            _ => [&self.variables, &self.constants].iter().any(|names| find(names, root).is_some()),
        };
        if known || is_constant(root) {
            return;
        }
        let (what, help) = if root == "self" {
            let what = "there is no `self` here: this function is not a method".to_owned();
            (what, format!("use an argument; {}", self.describe("")))
        } else {
            let what = format!("there is no argument `{root}`");
            (what, self.describe(root))
        };
        errors.push_in(literal, &Fault::new(placeholder.root_range(), what, help));
    }

    /// The names in scope, nearest first.
    fn describe(&self, wanted: &str) -> String {
        let names = self.variables.iter().chain(&self.constants);
        let mut names: Vec<String> = names.map(ToString::to_string).collect();
        names.extend(self.receiver.iter().map(|_| "self".to_owned()));
        if names.is_empty() {
            return "this function has no arguments: add one, or write a key without placeholders"
                .to_owned();
        }
        names.sort_by_key(|name| distance(wanted, name));
        let near = distance(wanted, &names[0]) <= 1 + wanted.chars().count() / 3;
        let question = if near && !wanted.is_empty() {
            format!("did you mean `{}`? ", names[0])
        } else {
            String::new()
        };
        format!("{question}the names in scope are {}", list(&names))
    }
}

fn find<'a>(names: &'a [Ident], root: &str) -> Option<&'a Ident> {
    let root = root.strip_prefix("r#").unwrap_or(root);
    names.iter().find(|name| name.unraw() == root)
}

/// A name that only the compiler can look up: a `const` or a `static`.
fn is_constant(name: &str) -> bool {
    name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase)
}

/// An identifier of template text, raw ones included.
pub(crate) fn new_ident(name: &str, span: Span) -> Ident {
    match name.strip_prefix("r#") {
        Some(raw) => Ident::new_raw(raw, span),
        None => Ident::new(name, span),
    }
}
