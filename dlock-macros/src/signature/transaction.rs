//! The caller's database transaction among the arguments: the one that holds a row lock, or one
//! that would commit only after a lease has ended.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{FnArg, GenericArgument, PatType, Path, PathArguments, Type};

use super::Function;
use crate::diagnostic::{Errors, distance, list};
use crate::options::Options;

/// A type that is known to be an sqlx transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A database with row locks, or one that only the compiler knows.
    WithRows,
    /// SQLite locks the whole file.
    Sqlite,
}

impl Function<'_> {
    /// The variable that holds the transaction, as the signature names it.
    pub(crate) fn transaction(&self, name: &Ident) -> Option<&Ident> {
        let variables = self.arguments.iter().flat_map(|argument| &argument.variables);
        variables.into_iter().find(|variable| *variable == name)
    }

    /// Reports a row lock without a transaction to hold it, and a lease that ends before the
    /// caller's transaction commits.
    pub(super) fn check_transactions(&self, options: &Options, errors: &mut Errors) {
        if let Some(name) = &options.transaction {
            self.check_row_lock(name, errors);
            return;
        }
        let borrowed: Vec<_> =
            self.typed().filter_map(|typed| Some((typed, borrowed(typed)?))).collect();
        match &options.unlock_before_commit {
            Some((true, span)) if borrowed.is_empty() => errors.push(
                *span,
                "`unlock_before_commit` has nothing to insist on: no argument is a transaction of the caller, such as `&mut sqlx::Transaction<'_, Postgres>`",
            ),
            None if options.mentions_commit => {}
            Some((true, _)) => {}
            _ => borrowed.into_iter().for_each(|(typed, kind)| errors.add(too_early(typed, kind))),
        }
    }

    fn typed(&self) -> impl Iterator<Item = &PatType> {
        self.signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(typed),
            FnArg::Receiver(_) => None,
        })
    }

    fn check_row_lock(&self, name: &Ident, errors: &mut Errors) {
        if self.transaction(name).is_none() {
            errors.push(name.span(), self.no_such_argument(name));
            return;
        }
        let Some(typed) = self.typed().find(|typed| is_named(typed, name)) else { return };
        let message = match (&*typed.ty, known(referent(&typed.ty))) {
            (_, Some(Kind::Sqlite)) => format!(
                "SQLite has no row locks: a transaction that began with `BEGIN IMMEDIATE` excludes all others by itself, so `{name}` needs no lock of its own; for a lock of another kind begin the transaction inside the function"
            ),
            (Type::Reference(reference), Some(_)) if reference.mutability.is_none() => format!(
                "a row is locked by a statement, which needs the transaction for itself: write `{name}: &mut {}`",
                shown(referent(&typed.ty))
            ),
            _ => return,
        };
        errors.add(syn::Error::new_spanned(&typed.ty, message));
    }

    fn no_such_argument(&self, name: &Ident) -> String {
        if self.has_argument(name) {
            return format!(
                "`{name}` is a part of an argument that is not taken apart as a whole: give the transaction an argument of its own, such as `{name}: &mut sqlx::Transaction<'_, Postgres>`"
            );
        }
        let mut names: Vec<_> =
            self.arguments.iter().flat_map(|argument| &argument.names).collect();
        if names.is_empty() {
            return format!(
                "there is no argument `{name}`: give the function one, such as `{name}: &mut sqlx::Transaction<'_, Postgres>`"
            );
        }
        let wanted = name.to_string();
        names.sort_by_key(|name| distance(&wanted, &name.to_string()));
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        format!(
            "there is no argument `{name}` to be the transaction; the arguments are {}",
            list(&names)
        )
    }
}

fn is_named(typed: &PatType, name: &Ident) -> bool {
    matches!(&*typed.pat, syn::Pat::Ident(pattern) if pattern.ident == *name)
}

/// The classic mistake: the lock ends with this function, the transaction with its caller.
fn too_early(typed: &PatType, kind: Kind) -> syn::Error {
    let name = match &*typed.pat {
        syn::Pat::Ident(pattern) => pattern.ident.to_string(),
        _ => "tx".to_owned(),
    };
    let instead = match kind {
        Kind::WithRows => format!(
            "lock a row in that very transaction with `transaction = {name}`, which holds until it ends, or begin"
        ),
        Kind::Sqlite => "begin".to_owned(),
    };
    let message = format!(
        "the caller commits this transaction after the lock has ended: in between the next holder reads what was there before\n\n{instead} the transaction inside this function; `unlock_before_commit = true` insists"
    );
    syn::Error::new_spanned(&typed.ty, message)
}

/// A transaction that the caller owns and will end.
fn borrowed(typed: &PatType) -> Option<Kind> {
    let mut ty = ungrouped(&typed.ty);
    // `Option<&mut …>`, `Pin<&mut …>`
    if let Type::Path(path) = ty
        && let Some(inner) = wrapped(&path.path)
    {
        ty = ungrouped(inner);
    }
    match ty {
        Type::Reference(reference) => known(ungrouped(&reference.elem)),
        _ => None,
    }
}

fn wrapped(path: &Path) -> Option<&Type> {
    let last = path.segments.last()?;
    if last.ident != "Option" && last.ident != "Pin" {
        return None;
    }
    arguments(&last.arguments).find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Whether this is an sqlx transaction. A user's own type may also be called `Transaction`; sqlx's
/// is recognized by its generics, a lifetime and a database.
fn known(ty: &Type) -> Option<Kind> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    match &*last.ident.to_string() {
        "PgTransaction" | "MySqlTransaction" => Some(Kind::WithRows),
        "SqliteTransaction" => Some(Kind::Sqlite),
        "Transaction" => {
            let arguments = || arguments(&last.arguments);
            let has_lifetime =
                arguments().any(|argument| matches!(argument, GenericArgument::Lifetime(_)));
            let database = arguments().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(name_of(ty)),
                _ => None,
            })?;
            match &*database {
                "Sqlite" => Some(Kind::Sqlite),
                "Postgres" | "MySql" | "Any" => Some(Kind::WithRows),
                _ => has_lifetime.then_some(Kind::WithRows),
            }
        }
        _ => None,
    }
}

fn arguments(arguments: &PathArguments) -> impl Iterator<Item = &GenericArgument> {
    let brackets = match arguments {
        PathArguments::AngleBracketed(brackets) => Some(&brackets.args),
        _ => None,
    };
    brackets.into_iter().flatten()
}

fn name_of(ty: &Type) -> String {
    match ungrouped(ty) {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    }
    .unwrap_or_default()
}

fn referent(ty: &Type) -> &Type {
    match ungrouped(ty) {
        Type::Reference(reference) => ungrouped(&reference.elem),
        ty => ty,
    }
}

fn shown(ty: &Type) -> String {
    let text = ty.to_token_stream().to_string();
    text.replace(" < ", "<").replace(" >", ">").replace(" ,", ",").replace(" :: ", "::")
}

/// The type inside parentheses, or inside the invisible delimiters that a `macro_rules!` fragment
/// leaves.
fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        Type::Paren(paren) => ungrouped(&paren.elem),
        ty => ty,
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn is_flagged(typed: &FnArg) -> bool {
        matches!(typed, FnArg::Typed(typed) if borrowed(typed).is_some())
    }

    #[test]
    fn transactions_of_sqlx_are_known_by_their_generics_and_aliases() {
        let transactions: [FnArg; 9] = [
            parse_quote!(tx: &mut Transaction<'_, Postgres>),
            parse_quote!(tx: &mut sqlx::Transaction<'_, sqlx::MySql>),
            parse_quote!(tx: &'a mut Transaction<'c, DB>),
            parse_quote!(tx: &Transaction<Sqlite>),
            parse_quote!(tx: &mut PgTransaction<'_>),
            parse_quote!(tx: &mut sqlx::MySqlTransaction<'_>),
            parse_quote!(tx: &mut (SqliteTransaction<'_>)),
            parse_quote!(tx: Option<&mut Transaction<'_, Postgres>>),
            parse_quote!(tx: Pin<&mut Transaction<'_, Postgres>>),
        ];
        for transaction in &transactions {
            assert!(is_flagged(transaction), "{}", transaction.to_token_stream());
        }
    }

    #[test]
    fn other_types_and_owned_ones_are_not() {
        let others: [FnArg; 7] = [
            parse_quote!(transaction: &mut Transaction),
            parse_quote!(transaction: &Transaction<Euro>),
            parse_quote!(transaction: &mut Transaction<'_>),
            parse_quote!(tx: Transaction<'static, Postgres>),
            parse_quote!(mut tx: PgTransaction<'_>),
            parse_quote!(connection: &mut PgConnection),
            parse_quote!(name: Option<String>),
        ];
        for other in &others {
            assert!(!is_flagged(other), "{}", other.to_token_stream());
        }
    }
}
