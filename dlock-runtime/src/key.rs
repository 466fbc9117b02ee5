//! The name of a lock: [`LockKey`], and how a template's values become part of it.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use crate::error::LockError;

/// The longest key that is accepted, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The name of a lock.
///
/// Two locks exclude each other if their keys are equal byte for byte and they live in the same
/// backend under the same prefix. Creating a key never fails. It is checked on use: a key of 0 or
/// of more than 512 bytes is [`LockError::InvalidKey`] before anything is sent.
///
/// A key created from text is used unchanged. To put *values* into a key, use the attribute's
/// template or [`LockKey::of`]: they encode whatever could be mistaken for structure, so that
/// different values never produce the same key.
///
/// ```
/// use dlock_runtime::LockKey;
///
/// let one = LockKey::of("user", &[&"x:y", &"z"]);
/// let two = LockKey::of("user", &[&"x", &"y:z"]);
/// assert_ne!(one, two);
/// assert_eq!(LockKey::of("product", &[&100]), LockKey::from("product:100"));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey(Arc<str>);

impl LockKey {
    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Builds `prefix:value:value…`, with every value rendered by `Display` and encoded like a
    /// template's placeholder.
    ///
    /// This is the attribute's `"prefix:<a>:<b>"` for manual calls. An empty value makes the key
    /// invalid, which is reported on use.
    #[must_use]
    pub fn of(prefix: &str, values: &[&dyn Display]) -> Self {
        let mut text = prefix.to_owned();
        for value in values {
            text.push(':');
            let start = text.len();
            // Writing into a `String` fails only if the value's own `Display` does.
            let complete = write!(Encoder(&mut text), "{value}").is_ok();
            if !complete || text.len() == start {
                return Self::from("");
            }
        }
        Self::from(text)
    }

    pub(crate) fn check(&self) -> Result<(), LockError> {
        let problem = match self.0.len() {
            0 => "it is empty, or a value in it is",
            1..=MAX_KEY_BYTES => return Ok(()),
            _ => "it is longer than 512 bytes; hash the long part",
        };
        Err(LockError::invalid_key(self, problem))
    }
}

impl From<&str> for LockKey {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for LockKey {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

impl From<&String> for LockKey {
    fn from(key: &String) -> Self {
        Self(key.as_str().into())
    }
}

impl From<&LockKey> for LockKey {
    fn from(key: &LockKey) -> Self {
        key.clone()
    }
}

impl Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Renders a template: the literal parts unchanged, the values encoded.
///
/// Public only for the attribute's expansion.
#[derive(Debug)]
pub struct KeyWriter {
    text: String,
    /// The first placeholder whose value cannot be part of a key, and why.
    problem: Option<(&'static str, &'static str)>,
}

impl KeyWriter {
    pub(crate) fn new() -> Self {
        Self { text: String::with_capacity(64), problem: None }
    }

    /// Appends text of the template itself.
    #[must_use]
    pub fn literal(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder's value in its injective encoding.
    #[must_use]
    pub fn value<V: KeyValue + ?Sized>(mut self, placeholder: &'static str, value: &V) -> Self {
        let start = self.text.len();
        let rendered = value.render(&mut Encoder(&mut self.text));
        if self.problem.is_none() {
            if rendered.is_err() {
                self.problem = Some((placeholder, "its `Display` failed"));
            } else if self.text.len() == start {
                self.problem = Some((placeholder, "its value is empty"));
            }
        }
        self
    }

    /// Returns the finished key.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`] if a value was empty or could not be rendered.
    pub fn finish(self) -> Result<LockKey, LockError> {
        let key = LockKey::from(self.text);
        match self.problem {
            None => Ok(key),
            Some((placeholder, problem)) => {
                Err(LockError::invalid_key(&key, format!("placeholder {placeholder}: {problem}")))
            }
        }
    }
}

/// A value that a key template can render: everything that implements [`Display`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a lock key",
    label = "a value of this key has the type `{Self}`, which does not implement `Display`",
    note = "keys are rendered through `Display`: implement it, or name a field or a method that has it, such as `<id.name>`"
)]
pub trait KeyValue {
    /// Writes the value.
    ///
    /// # Errors
    /// Those of the value's own `Display`.
    fn render(&self, out: &mut dyn Write) -> fmt::Result;
}

#[diagnostic::do_not_recommend]
impl<V: Display + ?Sized> KeyValue for V {
    fn render(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// Percent-encodes every character that could be part of a key's structure, including `%` itself.
/// The encoding is reversible and therefore injective.
struct Encoder<'a>(&'a mut String);

impl Write for Encoder<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if is_structure(character) {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    write!(self.0, "%{byte:02X}")?;
                }
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

fn is_structure(character: char) -> bool {
    matches!(character, '%' | ':' | '/' | '<' | '>' | '{' | '}' | ',')
        || character.is_whitespace()
        || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(value: &str) -> String {
        KeyWriter::new().literal("k:").value("<v>", value).finish().unwrap().as_str().to_owned()
    }

    #[test]
    fn plain_values_stay_readable() {
        assert_eq!(rendered("100"), "k:100");
        assert_eq!(rendered("Müller-7_a.b"), "k:Müller-7_a.b");
    }

    #[test]
    fn structure_in_a_value_is_encoded() {
        assert_eq!(rendered("a:b"), "k:a%3Ab");
        assert_eq!(rendered("100% {x}/<y>,\t\n"), "k:100%25%20%7Bx%7D%2F%3Cy%3E%2C%09%0A");
        assert_eq!(rendered("\u{a0}"), "k:%C2%A0");
    }

    #[test]
    fn an_empty_value_names_its_placeholder() {
        let error = KeyWriter::new().literal("k:").value("<v>", "").finish().unwrap_err();
        assert!(error.to_string().contains("<v>"), "{error}");
    }

    #[test]
    fn keys_are_one_to_512_bytes() {
        assert!(LockKey::from("").check().is_err());
        assert!(LockKey::from("x".repeat(512)).check().is_ok());
        assert!(LockKey::from("x".repeat(513)).check().is_err());
    }
}
