//! A configuration in TOML.

use std::fmt::Display;
use std::path::Path;

use super::{Config, ConfigError};

impl Config {
    /// Reads a TOML file that holds nothing else.
    ///
    /// # Errors
    /// A file that cannot be read, or what [`from_toml`](Self::from_toml) refuses.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        read(&text, &path.display())
    }

    /// Reads TOML text.
    ///
    /// # Errors
    /// What is not TOML, an unknown field, or a value of a wrong type, by line and column.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        read(text, &"configuration")
    }
}

fn read(text: &str, origin: &dyn Display) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        // The error's own text shows the line, and with it whatever password is in there.
        let before = error.span().and_then(|span| text.get(..span.start));
        let place = before.map_or_else(
            || origin.to_string(),
            |before| {
                let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
                let column = before.chars().rev().take_while(|sign| *sign != '\n').count() + 1;
                format!("{origin}:{line}:{column}")
            },
        );
        ConfigError::Text { place, problem: error.message().to_owned() }
    })
}
