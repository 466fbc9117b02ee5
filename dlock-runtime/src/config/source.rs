//! The source of a backend's URL.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::connect::is_scheme;

/// The source of a backend's URL. Its `Debug` output shows only the scheme of a URL.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "expected a backend's URL, `{ env = \"VARIABLE\" }`, or `{ file = \"/path\" }`"
)]
#[non_exhaustive]
pub enum Source {
    /// The URL itself, as accepted by [`connect`](crate::connect()).
    Url(String),
    /// An environment variable: `{ env = "LOCKS_URL" }`.
    Variable {
        /// Its name.
        env: String,
    },
    /// A file that contains only the URL, such as a mounted secret: `{ file = "/run/secrets/locks_url" }`. Leading and
    /// trailing white space is ignored.
    File {
        /// Its path.
        file: PathBuf,
    },
}

impl Source {
    /// The URL of the backend of this name.
    pub(super) fn url(&self, backend: &str) -> Result<Cow<'_, str>, ConfigError> {
        match self {
            Self::Url(url) => Ok(Cow::Borrowed(url)),
            Self::Variable { env } => std::env::var(env).map(Cow::Owned).map_err(|error| {
                // The error itself would repeat a value that is not UTF-8.
                let problem = match error {
                    std::env::VarError::NotPresent => "is not set",
                    std::env::VarError::NotUnicode(_) => "is not UTF-8",
                };
                let problem = format!("{problem}; backend `{backend}` reads its URL from it");
                ConfigError::Variable { name: env.clone(), problem }
            }),
            Self::File { file } => {
                let url = std::fs::read_to_string(file);
                let url = url.map_err(|source| ConfigError::File { path: file.clone(), source })?;
                Ok(Cow::Owned(url.trim().to_owned()))
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => {
                let scheme = url.split_once(':').map(|(scheme, _)| scheme);
                let scheme = scheme.filter(|scheme| is_scheme(scheme)).unwrap_or("?");
                write!(f, "Url({scheme}:…)")
            }
            Self::Variable { env } => write!(f, "Variable({env})"),
            Self::File { file } => write!(f, "File({})", file.display()),
        }
    }
}
