//! A configuration in TOML.

use std::fmt::Display;
use std::path::Path;

use super::{Config, ConfigError};

impl Config {
    /// Reads a TOML file that contains nothing else.
    ///
    /// # Errors
    /// A file that cannot be read, or an error of [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        read(&text, &path.display())
    }

    /// Reads TOML text.
    ///
    /// # Errors
    /// Invalid TOML, an unknown field, or a value of the wrong type, with line and column.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        read(text, &"configuration")
    }
}

fn read(text: &str, origin: &dyn Display) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        // The error's own `Display` shows the line, which may contain a password.
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
