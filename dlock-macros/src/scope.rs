//! The names that a key template may use.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::{GenericParam, LitStr};

use crate::diagnostic::{Errors, Fault, distance, list};
use crate::options::{Key, Keys};
use crate::signature::Function;
use crate::template::{Piece, Placeholder};

/// The names in scope where the key is built: arguments, `self`, const generics.
pub(crate) struct Scope {
    names: Vec<Ident>,
    /// The receiver's own token: `self` resolves only with the hygiene of that token.
    receiver: Option<Ident>,
}

impl Scope {
    pub(crate) fn of(function: &Function<'_>) -> Self {
        let arguments = function.arguments.iter().flat_map(|argument| argument.names.clone());
        let generics = &function.signature.generics;
        let constants = generics.params.iter().filter_map(|parameter| match parameter {
            GenericParam::Const(constant) => Some(constant.ident.clone()),
            _ => None,
        });
        Self { names: arguments.chain(constants).collect(), receiver: function.receiver() }
    }

    /// The identifier that a placeholder begins with. It has the argument's hygiene and the
    /// literal's location.
    pub(crate) fn root(&self, placeholder: &Placeholder, literal: Span) -> Ident {
        let root = &*placeholder.root;
        let known = if root == "self" { self.receiver.as_ref() } else { find(&self.names, root) };
        let span = known.map_or(literal, |known| known.span().located_at(literal));
        new_ident(root, span)
    }

    /// Reports every placeholder that begins with an unknown name.
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
            _ => find(&self.names, root).is_some(),
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
        let mut names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
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

/// An identifier from template text, raw identifiers included.
pub(crate) fn new_ident(name: &str, span: Span) -> Ident {
    match name.strip_prefix("r#") {
        Some(raw) => Ident::new_raw(raw, span),
        None => Ident::new(name, span),
    }
}
