//! Diagnostics: collected mistakes, carets, nearest names.

use std::fmt::Display;
use std::ops::Range;

use proc_macro2::{Span, TokenStream};
use syn::LitStr;

/// All mistakes of one attribute, reported together rather than one per compilation.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    /// Adds a mistake at a span.
    pub(crate) fn push(&mut self, span: Span, message: impl Display) {
        self.add(syn::Error::new(span, message));
    }

    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Adds a mistake inside a string literal. A span cannot point into a literal on stable Rust,
    /// so the message draws the literal with a caret line.
    pub(crate) fn push_in(&mut self, literal: &LitStr, fault: &Fault) {
        self.push(literal.span(), fault.draw(&literal.value()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn into_compile_errors(self) -> TokenStream {
        self.0.map(|error| error.to_compile_error()).unwrap_or_default()
    }
}

impl From<syn::Error> for Errors {
    fn from(error: syn::Error) -> Self {
        Self(Some(error))
    }
}

/// Longer strings do not fit on a line and are not drawn.
const LONGEST_DRAWN: usize = 100;

/// A mistake at a byte range of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) range: Range<usize>,
    /// What is wrong, as the first line.
    pub(crate) what: String,
    /// What to do about it, below the drawing.
    pub(crate) help: String,
}

impl Fault {
    pub(crate) fn new(
        range: Range<usize>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { range, what: what.into(), help: help.into() }
    }

    /// The message with the string and a caret line under the wrong part.
    pub(crate) fn draw(&self, text: &str) -> String {
        let Self { what, help, .. } = self;
        if text.chars().count() > LONGEST_DRAWN {
            return format!("{what}\n\n{help}");
        }
        let (before, rest) = text.split_at(self.range.start);
        let (wrong, after) = rest.split_at(self.range.len());
        let [before, wrong, after] = [before, wrong, after].map(as_source);
        let indent = " ".repeat(before.chars().count());
        let carets = "^".repeat(wrong.chars().count().max(1));
        format!("{what}\n\n    \"{before}{wrong}{after}\"\n     {indent}{carets}\n\n{help}")
    }
}

/// The text as it appears in source, so that the carets align even around control characters.
fn as_source(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, character| {
        match character {
            '"' | '\\' => shown.extend(['\\', character]),
            control if control.is_control() => shown.extend(control.escape_default()),
            plain => shown.push(plain),
        }
        shown
    })
}

/// The known name that the user probably meant.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known
        .iter()
        .map(|&candidate| (distance(name, candidate), candidate))
        .min_by_key(|&(distance, _)| distance)?;
    // A third of the letters may be wrong, and at least one.
    (distance <= 1 + name.chars().count() / 3).then_some(best)
}

/// The edit distance of two names, ignoring case.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(&one.to_lowercase(), &other.to_lowercase())
}

/// Formats names for a message: `a`, `b`, `c`.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_wrong_part() {
        let drawn = Fault::new(3..5, "wrong", "mend it").draw("ab<cd>");
        assert_eq!(drawn, "wrong\n\n    \"ab<cd>\"\n        ^^\n\nmend it");
    }

    #[test]
    fn the_caret_counts_escapes_and_characters_not_bytes() {
        let drawn = Fault::new(4..5, "wrong", "mend it").draw("ü\n\"x");
        assert_eq!(drawn, "wrong\n\n    \"ü\\n\\\"x\"\n          ^\n\nmend it");
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let known = ["key", "ttl", "backend", "max_hold"];
        assert_eq!(nearest("tll", &known), Some("ttl"));
        assert_eq!(nearest("maxhold", &known), Some("max_hold"));
        assert_eq!(nearest("Backend", &known), Some("backend"));
        assert_eq!(nearest("permits", &known), None);
    }
}
