//! The name of a lock: [`LockKey`], and how a template's values become part of it.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::{self, Display, Write};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

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
#[derive(Clone)]
pub struct LockKey {
    text: Arc<str>,
    /// Computed once, because a key is looked up several times on its way to the lock.
    hash: u64,
}

/// A map by key that uses the hash which each key has.
pub(crate) type KeyMap<V> = HashMap<LockKey, V, BuildHasherDefault<KeyHasher>>;

/// Different in each process, so that nobody can choose keys that collide.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl LockKey {
    fn new(text: Arc<str>) -> Self {
        let hash = HASHER.hash_one(&*text);
        Self { text, hash }
    }

    /// One of so many parts of all keys.
    pub(crate) fn part(&self, parts: usize) -> usize {
        usize::try_from(self.hash % parts as u64).unwrap_or_default()
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
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
        let problem = match self.text.len() {
            0 => "it is empty, or a value in it is",
            1..=MAX_KEY_BYTES => return Ok(()),
            _ => "it is longer than 512 bytes; hash the long part",
        };
        Err(LockError::invalid_key(self, problem))
    }
}

impl From<&str> for LockKey {
    fn from(key: &str) -> Self {
        Self::new(key.into())
    }
}

impl From<String> for LockKey {
    fn from(key: String) -> Self {
        Self::new(key.into())
    }
}

impl From<&String> for LockKey {
    fn from(key: &String) -> Self {
        Self::new(key.as_str().into())
    }
}

impl From<&LockKey> for LockKey {
    fn from(key: &LockKey) -> Self {
        key.clone()
    }
}

impl Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl PartialEq for LockKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for LockKey {}

impl PartialOrd for LockKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LockKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for LockKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that a key has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only keys are hashed");
    }

    fn finish(&self) -> u64 {
        self.0
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

thread_local! {
    /// The buffer of the last key that this thread has rendered, so that the next one needs none of its own.
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// A larger buffer is not kept.
const MAX_BUFFER: usize = 2 * MAX_KEY_BYTES;

impl KeyWriter {
    pub(crate) fn new() -> Self {
        // A value that renders a key in its own `Display` finds the buffer empty and makes another.
        let mut text = BUFFER.take();
        text.clear();
        text.reserve(64);
        Self { text, problem: None }
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
        let key = LockKey::from(&self.text);
        if self.text.capacity() <= MAX_BUFFER {
            BUFFER.set(self.text);
        }
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
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.0.push_str(text);
            return Ok(());
        }
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
    fn a_value_may_render_a_key_itself() {
        struct Outer;
        impl Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&rendered("inner").replace(':', "-"))
            }
        }
        let key = KeyWriter::new().literal("k:").value("<v>", &Outer).finish().unwrap();
        assert_eq!(key, LockKey::from("k:k-inner"));
        assert_eq!(rendered("again"), "k:again");
    }

    #[test]
    fn equal_keys_are_one_in_a_map_and_keys_are_ordered_by_their_text() {
        let mut map = KeyMap::default();
        map.insert(LockKey::from("b"), 1);
        map.insert(LockKey::from("b".to_owned()), 2);
        map.insert(LockKey::of("b", &[&1]), 3);
        assert_eq!((map.len(), map[&LockKey::from("b")]), (2, 2));
        let mut keys: Vec<_> = ["c", "a", "b"].map(LockKey::from).into();
        keys.sort();
        assert_eq!(keys, ["a", "b", "c"].map(LockKey::from));
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
