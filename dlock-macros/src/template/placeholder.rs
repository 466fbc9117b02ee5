//! One placeholder: a name in scope, then fields and methods without arguments.

use std::ops::Range;

use crate::diagnostic::Fault;

/// The advice for every value that a placeholder cannot express.
pub(super) const ELSEWHERE: &str = "a placeholder is a name, then any of `.field`, `.0` and `.method()`; for any other value write an expression: `key = LockKey::of(\"product\", &[&value])`";

/// `<order.customer.id()>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// The placeholder as written, brackets included.
    pub(crate) text: String,
    /// Its position in the template, brackets included.
    pub(crate) range: Range<usize>,
    pub(crate) root: String,
    pub(crate) steps: Vec<Step>,
}

impl Placeholder {
    /// The position of its first name in the template.
    pub(crate) fn root_range(&self) -> Range<usize> {
        let start = self.range.start + 1;
        start..start + self.root.len()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Index(u32),
    Method(String),
}

/// Parses the text between the brackets; `offset` is its position in the template.
pub(super) fn parse(inner: &str, offset: usize) -> Result<Placeholder, Fault> {
    if inner.is_empty() {
        let range = offset.saturating_sub(1)..offset + 1;
        return Err(Fault::new(
            range,
            "this placeholder is empty",
            "write a name between `<` and `>`, or `<<` and `>>` for literal brackets",
        ));
    }
    let mut at = 0;
    let root = name(inner, &mut at).ok_or_else(|| wrong(inner, at, offset))?;
    if !(is_usable(root) || root == "self" || inner[at..].starts_with("::")) {
        let range = offset..offset + root.len();
        return Err(Fault::new(range, format!("`{root}` is a keyword, not a name"), ELSEWHERE));
    }
    let mut steps = vec![];
    while at < inner.len() {
        steps.push(step(inner, &mut at).ok_or_else(|| wrong(inner, at, offset))?);
    }
    Ok(Placeholder {
        text: format!("<{inner}>"),
        range: offset.saturating_sub(1)..offset + inner.len() + 1,
        root: root.to_owned(),
        steps,
    })
}

fn step(inner: &str, at: &mut usize) -> Option<Step> {
    let rest = inner[*at..].strip_prefix('.')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits > 0 {
        let index = rest[..digits].parse().ok()?;
        *at += 1 + digits;
        return Some(Step::Index(index));
    }
    let mut end = *at + 1;
    let member = name(inner, &mut end)?;
    if !is_usable(member) {
        return None;
    }
    *at = end;
    if inner[end..].starts_with("()") {
        *at += 2;
        return Some(Step::Method(member.to_owned()));
    }
    Some(Step::Field(member.to_owned()))
}

/// Parses the name that begins at `at`, and moves `at` past it.
fn name<'a>(inner: &'a str, at: &mut usize) -> Option<&'a str> {
    let rest = &inner[*at..];
    let bare = rest.strip_prefix("r#").unwrap_or(rest);
    let first = bare.chars().next()?;
    if !(first == '_' || first.is_alphabetic()) {
        return None;
    }
    let length = bare.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(bare.len());
    let end = *at + (rest.len() - bare.len()) + length;
    let name = &inner[*at..end];
    *at = end;
    Some(name)
}

fn is_usable(name: &str) -> bool {
    syn::parse_str::<syn::Ident>(name).is_ok()
}

/// What is wrong at this position, in terms of what the user probably meant.
fn wrong(inner: &str, at: usize, offset: usize) -> Fault {
    let rest = &inner[at..];
    let next = rest.chars().next().unwrap_or(' ');
    let (length, what) = match next {
        '(' if is_empty_call(rest) => (2, "only a method can be called, not a function".to_owned()),
        '(' => (rest.len(), "a call with arguments cannot stand in a placeholder".to_owned()),
        '[' => (rest.len(), "an index cannot stand in a placeholder".to_owned()),
        '?' => (
            1,
            "`?` cannot stand in a placeholder: it could leave the function before it is locked"
                .to_owned(),
        ),
        ':' if rest.starts_with("::") => {
            (rest.len(), "a path cannot stand in a placeholder".to_owned())
        }
        ':' => {
            (rest.len(), "a placeholder has no format: values are rendered by `Display`".to_owned())
        }
        '&' | '*' if at == 0 => {
            (1, format!("`{next}` is not needed: a placeholder only looks at its value"))
        }
        '.' if rest.starts_with(".await") => (6, "a placeholder cannot wait".to_owned()),
        '.' => (rest.len(), "a name must follow this `.`".to_owned()),
        '"' | '\'' | '0'..='9' if at == 0 => {
            (rest.len(), "a literal needs no brackets: write it into the key as it is".to_owned())
        }
        white if white.is_whitespace() && rest.trim_start().starts_with(is_operator) => {
            (rest.len(), "an operator cannot stand in a placeholder".to_owned())
        }
        operator if is_operator(operator) => {
            (rest.len(), "an operator cannot stand in a placeholder".to_owned())
        }
        white if white.is_whitespace() => (1, "a placeholder has no white space in it".to_owned()),
        _ => (rest.len(), format!("`{inner}` is not a name with fields and methods")),
    };
    Fault::new(offset + at..offset + at + length, what, ELSEWHERE)
}

fn is_operator(character: char) -> bool {
    matches!(character, '+' | '-' | '*' | '/' | '%' | '=' | '!' | '|' | '&' | '^')
}

fn is_empty_call(rest: &str) -> bool {
    rest.starts_with("()")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_part(inner: &str) -> String {
        inner[parse(inner, 0).expect_err(inner).range].to_owned()
    }

    #[test]
    fn names_fields_and_methods_are_read() {
        let placeholder = parse("order.0.customer.id()", 3).unwrap();
        assert_eq!(placeholder.root, "order");
        assert_eq!(placeholder.range, 2..25);
        assert_eq!(placeholder.root_range(), 3..8);
        let [field, method] = ["customer", "id"].map(str::to_owned);
        assert_eq!(placeholder.steps, [Step::Index(0), Step::Field(field), Step::Method(method)]);
    }

    #[test]
    fn raw_names_self_and_constants_are_names() {
        for name in ["r#type", "self", "self.id", "_x", "N", "größe"] {
            assert!(parse(name, 0).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_wrong_part_is_marked() {
        assert_eq!(wrong_part("f(x)"), "(x)");
        assert_eq!(wrong_part("f()"), "()");
        assert_eq!(wrong_part("v[0]"), "[0]");
        assert_eq!(wrong_part("x?"), "?");
        assert_eq!(wrong_part("id:?"), ":?");
        assert_eq!(wrong_part("a::B"), "::B");
        assert_eq!(wrong_part("*x"), "*");
        assert_eq!(wrong_part("a + b"), " + b");
        assert_eq!(wrong_part("a b"), " ");
        assert_eq!(wrong_part("Self::B"), "::B");
        assert_eq!(wrong_part("x.get(1)"), "(1)");
        assert_eq!(wrong_part("x.await"), ".await");
        assert_eq!(wrong_part("x."), ".");
        assert_eq!(wrong_part("type"), "type");
        assert_eq!(wrong_part("7"), "7");
        assert_eq!(wrong_part("_"), "_");
    }
}
