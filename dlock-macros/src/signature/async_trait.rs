//! How `#[async_trait]` rewrites a method before the method's own attributes run.
//!
//! It returns a boxed future and begins its body with a rebinding of each argument:
//! `let id = id;`, and `let Path(id) = { let __arg1 = __arg1; __arg1 };` for a destructured one.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::quote_spanned;
use syn::parse::Parser;
use syn::visit::{self, Visit};
use syn::{Block, Expr, Local, Pat, Signature, Stmt};

use crate::item::Body;

/// Whether `#[async_trait]` has rewritten this method.
pub(crate) fn rewrote(signature: &Signature) -> bool {
    signature.generics.lifetimes().any(|parameter| parameter.lifetime.ident == "async_trait")
}

/// The pattern that the user wrote for an argument that is now called `__arg1`.
pub(super) fn pattern_of(argument: &Ident, body: &Body) -> Option<Pat> {
    if !argument.to_string().starts_with("__arg") {
        return None;
    }
    let statements = Block::parse_within.parse2(body.tokens.clone()).ok()?;
    let mut rebinding = Rebinding { argument, pattern: None };
    for statement in &statements {
        rebinding.visit_stmt(statement);
    }
    rebinding.pattern
}

struct Rebinding<'a> {
    argument: &'a Ident,
    pattern: Option<Pat>,
}

impl<'ast> Visit<'ast> for Rebinding<'_> {
    fn visit_local(&mut self, local: &'ast Local) {
        if let Some(init) = &local.init
            && let Expr::Block(block) = &*init.expr
            && let Some(Stmt::Expr(Expr::Path(path), None)) = block.block.stmts.last()
            && path.path.is_ident(self.argument)
        {
            self.pattern.get_or_insert_with(|| local.pat.clone());
        }
        visit::visit_local(self, local);
    }
}

/// The body with a mention of each name after its rebinding. Otherwise the compiler would report a
/// rebound argument that only the key uses as unused.
pub(crate) fn mention(body: TokenStream, names: &mut Vec<String>) -> TokenStream {
    let mut output = TokenStream::new();
    // The tokens since the last `let`.
    let mut statement: Vec<TokenTree> = vec![];
    for token in body {
        let token = match token {
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), mention(group.stream(), names));
                inner.set_span(group.span());
                TokenTree::Group(inner)
            }
            token => token,
        };
        if matches!(&token, TokenTree::Ident(ident) if ident == "let") {
            output.extend(statement.drain(..));
        } else if statement.is_empty() {
            output.extend([token]);
            continue;
        }
        let ends = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ';');
        statement.push(token);
        if ends {
            let mentions = mentions(&statement, names);
            output.extend(statement.drain(..));
            output.extend(mentions);
        }
    }
    output.extend(statement);
    output
}

/// Mentions of the wanted names that a statement rebinds.
fn mentions(statement: &[TokenTree], names: &mut Vec<String>) -> TokenStream {
    let equals =
        |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == '=');
    let mut sides = statement.splitn(2, equals);
    let (Some(pattern), Some([value, _semicolon])) = (sides.next(), sides.next()) else {
        return TokenStream::new();
    };
    let bound = idents(pattern.iter().cloned().collect());
    let rebinds = match value {
        TokenTree::Ident(value) => bound.last() == Some(value),
        TokenTree::Group(block) => {
            let last = block.stream().into_iter().last();
            matches!(last, Some(TokenTree::Ident(last)) if last.to_string().starts_with("__arg"))
        }
        _ => false,
    };
    let mut mentions = TokenStream::new();
    for name in bound.into_iter().filter(|_| rebinds) {
        if let Some(wanted) = names.iter().position(|wanted| name == wanted) {
            names.swap_remove(wanted);
            let mixed = Span::mixed_site();
            mentions.extend(quote_spanned! {mixed=>
                #[allow(clippy::used_underscore_binding)]
                let _ = &#name;
            });
        }
    }
    mentions
}

/// All identifiers, including those inside delimiters.
pub(crate) fn idents(tokens: TokenStream) -> Vec<Ident> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Ident(ident) => vec![ident],
            TokenTree::Group(group) => idents(group.stream()),
            _ => vec![],
        })
        .collect()
}
