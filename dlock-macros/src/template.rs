//! The grammar of key templates: literal text with placeholders `<name.field.method()>`.

use std::ops::Range;

use crate::diagnostic::Fault;

mod placeholder;

pub(crate) use placeholder::{Placeholder, Step};

/// The longest key that the runtime accepts.
const MAX_KEY_BYTES: usize = 512;

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(String),
    Value(Placeholder),
}

/// Parses a template and finds every fault in it. Parts without a fault are returned all the same.
pub(crate) fn parse(text: &str) -> (Vec<Piece>, Vec<Fault>) {
    let mut reader = Reader { text, at: 0, literal: String::new(), pieces: vec![], faults: vec![] };
    reader.read();
    let Reader { pieces, mut faults, .. } = reader;
    if faults.is_empty() {
        faults.extend(too_long(text, &pieces));
        faults.extend(ambiguous(&pieces));
    }
    (pieces, faults)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    literal: String,
    pieces: Vec<Piece>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read(&mut self) {
        if self.text.is_empty() {
            self.fault(0..0, "the key is empty", "name what is locked, such as \"product:<id>\"");
        }
        while let Some(character) = self.text[self.at..].chars().next() {
            let rest = &self.text[self.at..];
            if rest.starts_with("<<") || rest.starts_with(">>") {
                self.literal.push(character);
                self.at += 2;
                continue;
            }
            match character {
                '<' => self.placeholder(),
                '>' => {
                    self.fault(
                        self.at..self.at + 1,
                        "this `>` closes nothing",
                        "write `>>` for a literal `>`",
                    );
                    self.at += 1;
                }
                _ => {
                    if character == '{' {
                        self.check_braces();
                    }
                    self.literal.push(character);
                    self.at += character.len_utf8();
                }
            }
        }
        self.end_literal();
    }

    /// Parses from `<` to `>`.
    fn placeholder(&mut self) {
        let start = self.at + 1;
        let inner = &self.text[start..];
        let length = inner.find(['<', '>']).unwrap_or(inner.len());
        let end = start + length;
        let inner = &inner[..length];
        if !self.text[end..].starts_with('>') {
            let range = self.at..end;
            self.at = end;
            if inner.ends_with("::") {
                let length = balanced(&self.text[start - 1..]);
                self.at = start - 1 + length;
                self.fault(
                    end..self.at,
                    "type arguments cannot stand in a placeholder",
                    placeholder::ELSEWHERE,
                );
            } else {
                self.fault(
                    range,
                    "this `<` is never closed",
                    "end the placeholder with `>`, or write `<<` for a literal `<`",
                );
            }
            return;
        }
        self.end_literal();
        match placeholder::parse(inner, start) {
            Ok(placeholder) => self.pieces.push(Piece::Value(placeholder)),
            Err(fault) => self.faults.push(fault),
        }
        self.at = end + 1;
    }

    /// Reports `{id}`, which is `format!` syntax. Here it would silently be literal text, giving
    /// one key for all values.
    fn check_braces(&mut self) {
        let rest = &self.text[self.at + 1..];
        let Some(length) = rest.find('}') else { return };
        let (name, range) = (&rest[..length], self.at..self.at + length + 2);
        let (path, spec) = name.split_once(':').unwrap_or((name, ""));
        if path.is_empty() && (spec.is_empty() || name == ":?") {
            self.fault(
                range,
                "`{}` is not a placeholder of a key",
                "name the value: write `<name>` with the name of an argument",
            );
        } else if placeholder::parse(path, 0).is_ok() {
            self.fault(
                range,
                format!("`{{{name}}}` is literal text, not a placeholder"),
                format!("write `<{path}>`"),
            );
        }
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            self.pieces.push(Piece::Literal(std::mem::take(&mut self.literal)));
        }
    }

    fn fault(&mut self, range: Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.faults.push(Fault::new(range, what, help));
    }
}

/// The length of the bracketed text that begins here.
fn balanced(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

fn too_long(text: &str, pieces: &[Piece]) -> Option<Fault> {
    let length: usize = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => literal.len(),
            // A value has at least one byte.
            Piece::Value(_) => 1,
        })
        .sum();
    (length > MAX_KEY_BYTES).then(|| {
        Fault::new(
            0..text.len(),
            format!("the key is longer than {MAX_KEY_BYTES} bytes"),
            "shorten it",
        )
    })
}

/// Finds two values with no separator between them that a value cannot contain: different values
/// could give the same key. Separators are the characters that the runtime encodes in values.
fn ambiguous(pieces: &[Piece]) -> Vec<Fault> {
    let mut faults = vec![];
    let mut previous: Option<&Placeholder> = None;
    let mut separated = true;
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => separated |= literal.contains(separates),
            Piece::Value(value) => {
                if let Some(previous) = previous
                    && !separated
                {
                    faults.push(Fault::new(
                        previous.range.start..value.range.end,
                        "different values of these two could give the same key",
                        "put a separator between them that no value can contain: `:`, `/` or `,`",
                    ));
                }
                previous = Some(value);
                separated = false;
            }
        }
    }
    faults
}

/// Whether this character is always encoded in a value, and never part of an encoding.
fn separates(character: char) -> bool {
    matches!(character, ':' | '/' | '<' | '>' | '{' | '}' | ',')
        || character.is_whitespace()
        || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> Vec<String> {
        let show = |piece: Piece| match piece {
            Piece::Literal(literal) => literal,
            Piece::Value(value) => value.text,
        };
        let (pieces, faults) = parse(text);
        assert_eq!(faults, []);
        pieces.into_iter().map(show).collect()
    }

    fn faults(text: &str) -> Vec<(&str, String)> {
        let (_, faults) = parse(text);
        faults.into_iter().map(|fault| (&text[fault.range], fault.what)).collect()
    }

    #[test]
    fn literals_and_placeholders_alternate() {
        assert_eq!(rendered("product:<id>"), ["product:", "<id>"]);
        assert_eq!(rendered("<a>:<b.c>/x"), ["<a>", ":", "<b.c>", "/x"]);
        assert_eq!(rendered("all"), ["all"]);
    }

    #[test]
    fn doubled_brackets_are_literal() {
        assert_eq!(rendered("<<a>>:<a>>>"), ["<a>:", "<a>", ">"]);
    }

    #[test]
    fn braces_stay_literal_around_anything_but_a_name() {
        assert_eq!(rendered("{<id>}:x{1 2}"), ["{", "<id>", "}:x{1 2}"]);
        assert_eq!(faults("product:{id}:{a.b}").len(), 2);
        assert_eq!(faults("product:{id:?}")[0].0, "{id:?}");
        assert_eq!(faults("product:{}")[0].0, "{}");
    }

    #[test]
    fn brackets_that_do_not_match_are_found() {
        assert_eq!(faults("product:<id")[0].0, "<id");
        assert_eq!(faults("product:id>")[0].0, ">");
        assert_eq!(faults("<a:<b>")[0].0, "<a:");
        assert_eq!(faults("<a.parse::<u8>()>")[0].0, "<u8>()>");
        assert_eq!(faults("<a.parse::<u8>()>:<b>").len(), 1);
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(faults("<f(x)>:<v[0]>:{id}:>").len(), 4);
    }

    #[test]
    fn values_that_could_run_into_each_other_are_refused() {
        assert_eq!(faults("k:<a><b>")[0].0, "<a><b>");
        assert_eq!(faults("k:<a>-<b>:<c>%<d>").len(), 2);
        assert_eq!(faults("k:<a>-:-<b>/<c>"), []);
    }

    #[test]
    fn empty_and_overlong_keys_are_refused() {
        assert_eq!(faults("").len(), 1);
        assert_eq!(faults(&"x".repeat(512)), []);
        assert_eq!(faults(&"x".repeat(513)).len(), 1);
    }
}
