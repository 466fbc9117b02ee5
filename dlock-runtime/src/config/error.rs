//! The errors of a configuration.

use std::io;
use std::path::PathBuf;

use crate::error::BackendError;

/// Why a configuration could not be read, or a backend not connected. Its text shows no password.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read: the configuration, or one that holds a backend's URL.
    #[error("cannot read `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The text is not a valid configuration.
    #[error("{place}: {problem}")]
    Text {
        /// File, line and column, as far as known.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// An environment variable is missing or invalid.
    #[error("environment variable `{name}` {problem}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A backend could not be connected to.
    #[error("backend `{name}`: {source}")]
    Backend {
        /// Its name in the configuration.
        name: String,
        /// Why not.
        source: BackendError,
    },
}

crate::debug_as_display::debug_as_display!(ConfigError);
