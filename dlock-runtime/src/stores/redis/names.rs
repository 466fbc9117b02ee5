//! The names under which a lock is stored in Redis.

use percent_encoding::percent_decode_str;

use crate::key::LockKey;
use crate::owner::OwnerId;

/// The names that belong to one lock. They share a hash tag, and therefore a slot of a Cluster.
#[derive(Debug)]
pub(in crate::stores) struct Names {
    /// Holder and token while the lock is held: `prefix{key}`.
    pub(in crate::stores) lock: String,
}

impl Names {
    pub(in crate::stores) fn new(prefix: &str, key: &LockKey) -> Self {
        let mut lock = String::with_capacity(prefix.len() + key.as_str().len() + 2);
        lock.push_str(prefix);
        lock.push('{');
        // A brace in the key would end the hash tag early; `%` makes the encoding injective.
        for character in key.as_str().chars() {
            match character {
                '%' => lock.push_str("%25"),
                '{' => lock.push_str("%7B"),
                '}' => lock.push_str("%7D"),
                plain => lock.push(plain),
            }
        }
        lock.push('}');
        Self { lock }
    }

    /// The last token that was granted.
    pub(in crate::stores) fn token(&self) -> String {
        self.with(":token")
    }

    /// The readers or permit holders, and the queue.
    pub(in crate::stores) fn group(&self) -> String {
        self.with(":group")
    }

    /// Those that wait for the lock with plain claims.
    pub(in crate::stores) fn line(&self) -> String {
        self.with(":line")
    }

    /// The channel on which a release is announced.
    pub(in crate::stores) fn channel(&self) -> String {
        channel_of(&self.lock)
    }

    /// The tombstone that the release of an abandoned acquire leaves.
    pub(in crate::stores) fn tombstone(&self, owner: &OwnerId) -> String {
        format!("{}:gone:{owner}", self.lock)
    }

    /// Returns a `SCAN` pattern for the names of all keys that begin with `key_prefix`.
    pub(in crate::stores) fn pattern(prefix: &str, key_prefix: &str) -> String {
        let Self { lock } = Self::new(prefix, &key_prefix.into());
        let mut pattern = String::with_capacity(lock.len() + 1);
        for character in lock[..lock.len() - 1].chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('*');
        pattern
    }

    /// Returns the key whose lock, group or line has this name.
    pub(in crate::stores) fn key(prefix: &str, name: &str) -> Option<LockKey> {
        let (key, rest) = name.strip_prefix(prefix)?.strip_prefix('{')?.split_once('}')?;
        let is_one = matches!(rest, "" | ":group" | ":line");
        let plain = percent_decode_str(key).decode_utf8().ok()?;
        is_one.then(|| LockKey::from(&*plain))
    }

    fn with(&self, suffix: &str) -> String {
        let mut name = String::with_capacity(self.lock.len() + suffix.len());
        name.push_str(&self.lock);
        name.push_str(suffix);
        name
    }
}

/// The channel on which the release of the lock with this name is announced.
pub(super) fn channel_of(lock: &str) -> String {
    format!("{lock}:free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tag_is_the_whole_key() {
        assert_eq!(Names::new("dlock:", &"product:100".into()).lock, "dlock:{product:100}");
        assert_eq!(Names::new("dlock:", &"a}{b%7D".into()).lock, "dlock:{a%7D%7Bb%257D}");
    }

    #[test]
    fn a_key_is_read_back_from_its_names() {
        for key in ["product:100", "a}{b%7D", "50% Grüße"].map(LockKey::from) {
            let names = Names::new("dlock:", &key);
            for name in [&names.lock, &names.group(), &names.line()] {
                assert_eq!(Names::key("dlock:", name), Some(key.clone()));
            }
            assert_eq!(Names::key("dlock:", &names.token()), None);
        }
        assert_eq!(Names::key("dlock:", "dlock:mark"), None);
    }

    #[test]
    fn a_pattern_escapes_special_characters() {
        assert_eq!(Names::pattern("dlock:", "a*{"), "dlock:{a\\*%7B*");
    }
}
