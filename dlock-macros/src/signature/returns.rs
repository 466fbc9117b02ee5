//! What a function returns: the form of its future and the future's output.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    GenericArgument, Lifetime, Path, PathArguments, PathSegment, ReturnType, Signature, Token,
    Type, TypeInfer, TypeParamBound, TypeTraitObject,
};

use super::output_of;
use crate::diagnostic::Errors;

/// The form in which the function returns its future.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `async fn`
    Async,
    /// `fn … -> impl Future`
    Future,
    /// `fn … -> Pin<Box<dyn Future>>`, or an alias of such a type.
    Boxed,
    /// No future.
    Blocking,
}

/// The return type.
pub(crate) struct Returns {
    pub(crate) shape: Shape,
    /// The type as written.
    written: Option<Type>,
    /// The future's output type, if it is visible in the signature.
    seen: Option<Type>,
}

impl Returns {
    pub(super) fn of(signature: &Signature) -> Self {
        let written = match &signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some(ungrouped(ty).clone()),
        };
        let (shape, seen) = if signature.asyncness.is_some() {
            (Shape::Async, written.clone())
        } else {
            written.as_ref().map_or((Shape::Blocking, None), future)
        };
        Self { shape, written, seen }
    }

    /// The future's output type, with `_` for every `impl Trait` in it.
    pub(crate) fn output(&self) -> Type {
        struct Inferred;
        impl VisitMut for Inferred {
            fn visit_type_mut(&mut self, ty: &mut Type) {
                if let Type::ImplTrait(opaque) = ty {
                    let underscore_token = Token![_](opaque.impl_token.span);
                    *ty = Type::Infer(TypeInfer { attrs: vec![], underscore_token });
                } else {
                    visit_mut::visit_type_mut(self, ty);
                }
            }
        }
        let mut output = match (&self.seen, &self.written) {
            (Some(seen), _) => seen.clone(),
            (None, Some(future)) => output_of(future),
            (None, None) => unit(Span::call_site()),
        };
        Inferred.visit_type_mut(&mut output);
        output
    }

    /// The output type as a witness for its error type. Every `impl Trait` becomes `()`: the error
    /// type does not depend on it, and `_` could not be inferred here.
    pub(crate) fn witness(&self) -> Type {
        struct Unit;
        impl VisitMut for Unit {
            fn visit_type_mut(&mut self, ty: &mut Type) {
                if let Type::Infer(inferred) = ty {
                    *ty = unit(inferred.underscore_token.span);
                } else {
                    visit_mut::visit_type_mut(self, ty);
                }
            }
        }
        let mut output = self.output();
        Unit.visit_type_mut(&mut output);
        output
    }

    /// The type that a boxed body is converted to: the written type, but free to borrow from the
    /// guard, which lives shorter than any lifetime that the function names.
    pub(crate) fn boxed(&self) -> Option<Type> {
        struct Shortened;
        impl VisitMut for Shortened {
            fn visit_type_trait_object_mut(&mut self, object: &mut TypeTraitObject) {
                let bounds = std::mem::take(&mut object.bounds).into_iter();
                object.bounds = bounds
                    .filter(|bound| !matches!(bound, TypeParamBound::Lifetime(_)))
                    .chain([TypeParamBound::Lifetime(inferred_lifetime())])
                    .collect();
            }
        }
        let mut written = self.written.clone()?;
        if let Type::Path(path) = &mut written
            && let Some(last) = path.path.segments.last_mut()
            && let PathArguments::AngleBracketed(brackets) = &mut last.arguments
        {
            if last.ident == "Pin" {
                for argument in &mut brackets.args {
                    Shortened.visit_generic_argument_mut(argument);
                }
            } else {
                for argument in &mut brackets.args {
                    if let GenericArgument::Lifetime(lifetime) = argument {
                        *lifetime = inferred_lifetime();
                    }
                }
            }
        }
        Some(written)
    }

    pub(super) fn check(&self, signature: &Signature, errors: &mut Errors) {
        if self.shape == Shape::Blocking {
            if signature.constness.is_some() || signature.abi.is_some() {
                // It cannot be async, which has been reported.
                return;
            }
            let name = &signature.ident;
            let future = self.written.as_ref().and_then(unpinned_future);
            let message = future.unwrap_or("only an async function can be locked: write `async fn`, or return `impl Future<Output = Result<T, E>>`; code without async acquires a lock with `dlock_runtime::blocking`");
            let span = signature.fn_token.span;
            errors.push(span, format!("`{name}` is not async; {message}"));
            return;
        }
        let Some(ty) = &self.seen else {
            if self.shape == Shape::Async {
                errors.push(signature.ident.span(), "this function returns nothing and could not report that its lock was not taken: return `Result<(), E>` with `E: From<LockError>`, such as `Result<(), LockError>`");
            }
            return;
        };
        if let Some(wrong) = not_a_result(ty) {
            let message = match wrong {
                Wrong::Future => "this function returns a future that runs after the lock is released: make it `async fn … -> Result<T, E>` and await that future inside".to_owned(),
                Wrong::Optional(inner) => format!("an `Option` cannot report that the lock was not taken: return `Result<Option<{inner}>, E>` with `E: From<LockError>` (`on_busy = \"skip\"` then gives `Ok(None)`)"),
                Wrong::Other(shown) => format!("this function could not report that its lock was not taken: return `Result<{shown}, E>` with `E: From<LockError>`, such as `Result<{shown}, LockError>`"),
            };
            errors.add(syn::Error::new_spanned(ty, message));
        }
    }

    /// Reports `on_busy = "skip"` if there is no value to return for a skipped body. If an alias
    /// hides the type, the runtime's trait decides.
    pub(super) fn check_skip(&self, option: Span, errors: &mut Errors) {
        let Some(ok) = self.seen.as_ref().and_then(ok_type) else { return };
        let ok = ungrouped(ok);
        let skippable = match ok {
            Type::Tuple(tuple) => tuple.elems.is_empty(),
            Type::Path(path) => matches!(plain_value(&path.path), None | Some("Option")),
            Type::Infer(_) | Type::Macro(_) | Type::Verbatim(_) => true,
            _ => false,
        };
        if !skippable {
            let shown = show(ok);
            errors.push(option, format!("`on_busy = \"skip\"` has no value to return for a skipped body: return `Result<Option<{shown}>, E>` (skipped: `Ok(None)`) or `Result<(), E>` (skipped: `Ok(())`)"));
        }
    }
}

/// The form of a function that is not `async`, based on its return type.
fn future(ty: &Type) -> (Shape, Option<Type>) {
    match ty {
        Type::ImplTrait(opaque) => match future_output(&opaque.bounds) {
            Some(output) => (Shape::Future, Some(output)),
            None => (Shape::Blocking, None),
        },
        Type::Path(path) => match path.path.segments.last() {
            Some(pin) if pin.ident == "Pin" => (Shape::Boxed, boxed_output(pin)),
            Some(alias) if alias.ident == "BoxFuture" || alias.ident == "LocalBoxFuture" => {
                (Shape::Boxed, types(alias).last().cloned())
            }
            Some(alias) if is_future_name(alias) => (Shape::Boxed, None),
            _ => (Shape::Blocking, None),
        },
        _ => (Shape::Blocking, None),
    }
}

/// The output of a future with these bounds; `()` if none is written.
fn future_output<'a>(bounds: impl IntoIterator<Item = &'a TypeParamBound>) -> Option<Type> {
    let segment = bounds.into_iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => {
            bound.path.segments.last().filter(|segment| segment.ident == "Future")
        }
        _ => None,
    })?;
    let written = arguments(segment).find_map(|argument| match argument {
        GenericArgument::AssocType(output) if output.ident == "Output" => Some(output.ty.clone()),
        _ => None,
    });
    Some(written.unwrap_or_else(|| unit(segment.span())))
}

/// The output in `Pin<Box<dyn Future<Output = …>>>`.
fn boxed_output(pin: &PathSegment) -> Option<Type> {
    let Type::Path(boxed) = ungrouped(types(pin).next()?) else { return None };
    match ungrouped(types(boxed.path.segments.last()?).next()?) {
        Type::TraitObject(object) => future_output(&object.bounds),
        _ => None,
    }
}

/// Why a type that involves futures cannot be expanded.
fn unpinned_future(ty: &Type) -> Option<&'static str> {
    let Type::Path(path) = ty else { return None };
    let boxed = path.path.segments.last().filter(|segment| segment.ident == "Box")?;
    let Type::TraitObject(object) = ungrouped(types(boxed).next()?) else { return None };
    future_output(&object.bounds)?;
    Some(
        "a boxed future must be pinned: return `Pin<Box<dyn Future<Output = Result<T, E>>>>`, or write `async fn`",
    )
}

enum Wrong {
    Future,
    Optional(String),
    Other(String),
}

/// Whether this is certainly not a `Result`. Names that may be an alias of one are left to the
/// compiler.
fn not_a_result(ty: &Type) -> Option<Wrong> {
    let ty = ungrouped(ty);
    match ty {
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            if is_future_name(last) || boxed_future(last) {
                return Some(Wrong::Future);
            }
            match plain_value(&path.path)? {
                "Option" => Some(Wrong::Optional(types(last).next().map_or("T".to_owned(), show))),
                _ => Some(Wrong::Other(show(ty))),
            }
        }
        Type::ImplTrait(opaque) if future_output(&opaque.bounds).is_some() => Some(Wrong::Future),
        Type::Infer(_) | Type::Macro(_) | Type::Verbatim(_) => None,
        Type::Never(_) => Some(Wrong::Other("()".to_owned())),
        _ => Some(Wrong::Other(show(ty))),
    }
}

fn boxed_future(segment: &PathSegment) -> bool {
    segment.ident == "Pin" && boxed_output(segment).is_some()
}

/// The name of a well-known type that is neither `Result` nor `()`, and is unlikely to be an alias.
fn plain_value(path: &Path) -> Option<&'static str> {
    const PLAIN: [&str; 24] = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
        "f32", "f64", "bool", "char", "str", "String", "Vec", "Box", "Arc", "Rc", "HashMap",
        "Duration",
    ];
    let last = path.segments.last()?;
    if last.ident == "Option" {
        return Some("Option");
    }
    PLAIN.into_iter().find(|plain| last.ident == plain)
}

fn ok_type(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ungrouped(ty) else { return None };
    let last = path.path.segments.last()?;
    if last.ident == "Result" { types(last).next() } else { None }
}

fn is_future_name(segment: &PathSegment) -> bool {
    let name = segment.ident.to_string();
    name.ends_with("Future") || name.ends_with("Fut")
}

fn arguments(segment: &PathSegment) -> impl Iterator<Item = &GenericArgument> {
    match &segment.arguments {
        PathArguments::AngleBracketed(brackets) => Some(brackets.args.iter()),
        _ => None,
    }
    .into_iter()
    .flatten()
}

fn types(segment: &PathSegment) -> impl Iterator<Item = &Type> {
    arguments(segment).filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The type inside parentheses, or inside the invisible delimiters of a `macro_rules!` fragment.
fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        Type::Paren(paren) => ungrouped(&paren.elem),
        ty => ty,
    }
}

fn inferred_lifetime() -> Lifetime {
    Lifetime::new("'_", Span::mixed_site())
}

fn unit(span: Span) -> Type {
    syn::parse_quote_spanned!(span=> ())
}

/// A type as a user would write it.
fn show(ty: &Type) -> String {
    let tokens = quote::quote!(#ty).to_string();
    tokens
        .replace(" < ", "<")
        .replace(" >", ">")
        .replace(" ,", ",")
        .replace("& ", "&")
        .replace(" :: ", "::")
}
