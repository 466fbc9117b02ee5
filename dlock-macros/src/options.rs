//! The options of the attribute.

use std::num::NonZeroU32;
use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::{Expr, ExprPath, Ident, LitStr};

use crate::diagnostic::Errors;
use crate::template::{self, Piece};

mod arguments;
mod row_lock;
mod table;
mod together;
mod value;

use arguments::Argument;
pub(crate) use table::OPTIONS;

/// The options of one attribute. An option is `None` if it is absent or its value is unusable.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) keys: Option<Keys>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: Option<Wait>,
    pub(crate) backend: Option<LitStr>,
    pub(crate) renew: Option<bool>,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) min_hold: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) on_busy: Option<(OnBusy, Span)>,
    pub(crate) on_lost: Option<OnLost>,
    pub(crate) reentrant: Option<bool>,
    pub(crate) mode: Option<Mode>,
    pub(crate) permits: Option<NonZeroU32>,
    pub(crate) fair: Option<bool>,
    pub(crate) handover: Option<Handover>,
    pub(crate) guard: Option<Ident>,
    /// The argument whose transaction holds the row lock.
    pub(crate) transaction: Option<Ident>,
    pub(crate) unlock_before_commit: Option<(bool, Span)>,
    /// Whether either of the two is present, valid or not. If so, the user has considered the
    /// commit.
    pub(crate) mentions_commit: bool,
    pub(crate) map_err: Option<ExprPath>,
    pub(crate) krate: Option<ExprPath>,
}

/// The keys to lock.
pub(crate) enum Keys {
    /// `key = …`
    One(Key),
    /// `keys = […]`
    All(Vec<Key>),
}

pub(crate) enum Key {
    Template {
        literal: LitStr,
        pieces: Vec<Piece>,
    },
    /// A Rust expression that is `impl Into<LockKey>`.
    Expression(Expr),
}

#[derive(Clone, Copy)]
pub(crate) enum Wait {
    UpTo(Duration),
    Forever,
}

/// How far a lease may be passed on; not at all with zero passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handover {
    pub(crate) passes: u16,
    pub(crate) within: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnBusy {
    Error,
    Skip,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
}

#[derive(Clone, Copy)]
pub(crate) enum OnLost {
    Cancel,
    Finish,
    Keep,
}

impl Keys {
    pub(crate) fn as_slice(&self) -> &[Key] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::All(keys) => keys,
        }
    }
}

/// Parses the attribute's arguments. Mistakes go to `errors`; valid options are returned.
pub(crate) fn parse(arguments: TokenStream, errors: &mut Errors) -> Options {
    let arguments = arguments::parse(arguments, errors);
    let mut options = Options::default();
    for argument in &arguments.read {
        if let Err(error) = options.set(argument, errors) {
            errors.add(error);
        }
    }
    let mentioned = |name: &str| arguments.read.iter().any(|argument| argument.name == name);
    options.mentions_commit = mentioned("transaction") || mentioned("unlock_before_commit");
    together::check(&options, &arguments, errors);
    options
}

impl Options {
    pub(crate) fn skips_if_busy(&self) -> bool {
        matches!(self.on_busy, Some((OnBusy::Skip, _)))
    }

    /// How long to wait. A run that may be skipped waits only if the user says so.
    pub(crate) fn wait(&self) -> Option<Wait> {
        let none = Wait::UpTo(Duration::ZERO);
        self.wait.or_else(|| self.skips_if_busy().then_some(none))
    }

    fn set(&mut self, argument: &Argument, errors: &mut Errors) -> syn::Result<()> {
        // Unknown names were reported when the arguments were parsed.
        table::find(&argument.name.to_string())
            .map_or(Ok(()), |option| (option.set)(self, argument, errors))
    }
}

fn key(value: &Expr, errors: &mut Errors) -> syn::Result<Key> {
    match value {
        Expr::Lit(_) => {
            let literal = value::string(
                value,
                "a key is a string or an expression that makes one",
                "\"product:<id>\"",
            )?;
            let (pieces, faults) = template::parse(&literal.value());
            for fault in &faults {
                errors.push_in(&literal, fault);
            }
            Ok(Key::Template { literal, pieces })
        }
        Expr::Array(array) => {
            Err(syn::Error::new_spanned(array, "several keys are written `keys = […]`"))
        }
        _ => Ok(Key::Expression(value.clone())),
    }
}

fn keys(value: &Expr, errors: &mut Errors) -> syn::Result<Option<Keys>> {
    let Expr::Array(array) = value else {
        let message = "`keys` is a list: `keys = [\"account:<from>\", \"account:<to>\"]`";
        return Err(syn::Error::new_spanned(value, message));
    };
    if array.elems.is_empty() {
        let message = "an empty list locks nothing: name at least one key, such as `keys = [\"account:<from>\", \"account:<to>\"]`";
        return Err(syn::Error::new_spanned(value, message));
    }
    let mut keys = vec![];
    for element in &array.elems {
        match key(value::ungrouped(element), errors) {
            Ok(key) => keys.push(key),
            Err(error) => errors.add(error),
        }
    }
    // An invalid key has been reported; the other keys are still checked.
    Ok(Some(Keys::All(keys)))
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn mistakes(arguments: TokenStream) -> String {
        let mut errors = Errors::default();
        parse(arguments, &mut errors);
        errors.into_compile_errors().to_string()
    }

    #[test]
    fn a_full_attribute_is_read() {
        let mut errors = Errors::default();
        let options = parse(
            quote! {
                key = "product:<id>", ttl = "5s", wait = "forever", backend = "redis", renew = false,
                max_hold = "4s", min_hold = "1s", on_busy = "skip", on_lost = "keep",
                reentrant = false, guard = lock, map_err = Error::from, crate = ::dlock,
            },
            &mut errors,
        );
        assert!(errors.is_empty());
        assert!(matches!(options.keys, Some(Keys::One(Key::Template { .. }))));
        assert_eq!(options.ttl, Some(Duration::from_secs(5)));
        assert!(matches!(options.wait, Some(Wait::Forever)));
        assert_eq!(options.renew, Some(false));
        assert_eq!(options.guard.unwrap(), "lock");
    }

    #[test]
    fn expressions_with_commas_are_one_value() {
        let mut errors = Errors::default();
        let options = parse(quote!(keys = [make::<A, B>(x), "b:<y>"], ttl = "5s"), &mut errors);
        assert!(errors.is_empty());
        assert_eq!(options.keys.unwrap().as_slice().len(), 2);
    }

    #[test]
    fn all_mistakes_are_found_at_once() {
        let found =
            mistakes(quote!(ky = "a", ttl = 5, wait = "3", renew = "yes", on_lost = "finsh"));
        for part in ["`key`?", "\\\"5s\\\"", "\\\"3s\\\"", "renew = true", "\\\"finish\\\"?"] {
            assert!(found.contains(part), "{part} is not in {found}");
        }
    }

    #[test]
    fn a_duplicate_is_found() {
        assert!(mistakes(quote!(key = "a", ttl = "5s", ttl = "6s")).contains("twice"));
    }

    #[test]
    fn a_limit_for_passes_is_read() {
        let read = |arguments| {
            let mut errors = Errors::default();
            let options = parse(arguments, &mut errors);
            assert!(errors.is_empty());
            options.handover.map(|Handover { passes, within }| (passes, within.as_millis()))
        };
        assert_eq!(read(quote!(key = "a", handover = "64 in 10ms")), Some((64, 10)));
        assert_eq!(read(quote!(key = "a", handover = "1 in 1s")), Some((1, 1_000)));
        assert_eq!(read(quote!(key = "a", handover = "off")), Some((0, 0)));
    }

    #[test]
    fn options_that_contradict_each_other_are_found() {
        let found = mistakes(quote!(key = "a", renew = false, ttl = "5s", max_hold = "6s"));
        assert!(found.contains("`max_hold` is longer than `ttl`"), "{found}");
        assert!(mistakes(quote!(key = "a", keys = ["b"])).contains("exclude each other"));
    }
}
