//! Backends and defaults from a service's own configuration: a file, the environment, or both.
//!
//! [`Config`] is a `serde` structure, to be a part of the service's own:
//!
//! ```standalone_crate
//! use dlock_runtime::config::Config;
//!
//! #[derive(serde::Deserialize)]
//! struct ShopConfig {
//!     listen: String,
//!     locks: Config,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config: ShopConfig = toml::from_str(
//!     r#"
//!     listen = "0.0.0.0:8080"
//!
//!     [locks]
//!     default_backend = "memory"
//!     default_ttl = "10s"
//!
//!     [locks.backends]
//!     memory = "memory:"
//!     ## redis = "redis://cache.internal/"
//!     ## database = { env = "DATABASE_URL" }
//!     ## jobs = { file = "/run/secrets/zookeeper_url" }
//!     "#,
//! )?;
//! let locks = config.locks.overridden_by(Config::from_env()?).connect().await?.install()?;
//! assert_eq!(locks.backends().collect::<Vec<_>>(), ["memory"]);
//! # Ok(())
//! # }
//! ```
//!
//! A service without such a structure has [`Config::from_file`], a TOML file like the table `locks` above, and
//! [`Config::from_env`], which needs no file at all:
//!
//! ```sh
//! DLOCK_BACKEND_REDIS=redis://cache.internal/ DLOCK_DEFAULT_TTL=10s shop
//! ```

mod error;
mod fields;
mod file;
mod source;
mod variables;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;

pub use self::error::ConfigError;
pub use self::source::Source;
use crate::registry::{Registry, RegistryBuilder};

/// What a [`Registry`] is made of, as a part of a service's configuration.
///
/// It can be read from any `serde` format. A field that is not known is an error, and no error repeats a text that
/// stands where it does not belong, since that may be a URL with a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The backends by the names that annotations refer to.
    pub backends: BTreeMap<String, Source>,
    /// See [`RegistryBuilder::default_backend`].
    pub default_backend: Option<String>,
    /// See [`RegistryBuilder::default_ttl`]. In text a duration with its unit, `"30s"`.
    pub default_ttl: Option<Duration>,
    /// See [`RegistryBuilder::allow_unregistered`].
    pub allow_unregistered: Vec<String>,
}

impl Config {
    /// What another one says goes before what this one says, as the environment goes before a file: its defaults,
    /// and its backends name by name. What either allows to be unregistered is allowed.
    #[must_use]
    pub fn overridden_by(mut self, other: Self) -> Self {
        self.backends.extend(other.backends);
        self.default_backend = other.default_backend.or(self.default_backend);
        self.default_ttl = other.default_ttl.or(self.default_ttl);
        self.allow_unregistered.extend(other.allow_unregistered);
        self
    }

    /// Connects to all backends, at once, as [`connect`](crate::connect()) does. Other backends can still be added
    /// to what it returns, before it is [installed](RegistryBuilder::install).
    ///
    /// # Errors
    /// A backend whose URL cannot be found, or to which it could not be connected. No error shows a password.
    ///
    /// # Cancel safety
    /// Cancel safe: connections under way are closed.
    pub async fn connect(&self) -> Result<RegistryBuilder, ConfigError> {
        let connecting = self.backends.iter().map(|(name, source)| async move {
            let url = source.url(name)?;
            let backend = crate::connect(&url).await;
            backend.map_err(|source| ConfigError::Backend { name: name.clone(), source })
        });
        let backends = try_join_all(connecting).await?;
        let mut builder = Registry::builder();
        for (name, backend) in self.backends.keys().zip(backends) {
            builder = builder.backend(name, backend);
        }
        if let Some(name) = &self.default_backend {
            builder = builder.default_backend(name);
        }
        if let Some(ttl) = self.default_ttl {
            builder = builder.default_ttl(ttl);
        }
        Ok(self.allow_unregistered.iter().fold(builder, RegistryBuilder::allow_unregistered))
    }
}
