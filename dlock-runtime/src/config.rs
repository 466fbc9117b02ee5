//! Backends and defaults from a service's own configuration: a file, the environment, or both.
//!
//! [`Config`] is a `serde` structure, meant as a part of the service's own:
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
//! A service without such a structure can use [`Config::from_file`], with a TOML file like the table `locks` above, or
//! [`Config::from_env`], which needs no file:
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
use crate::options::Handover;
use crate::registry::{Registry, RegistryBuilder};

/// The configuration of a [`Registry`], as part of a service's configuration.
///
/// It can be deserialized from any `serde` format. Unknown fields are errors. No error repeats text in the wrong
/// position, because that may be a URL with a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The backends, by the names that annotations refer to.
    pub backends: BTreeMap<String, Source>,
    /// See [`RegistryBuilder::default_backend`].
    pub default_backend: Option<String>,
    /// See [`RegistryBuilder::default_ttl`]. Written as a duration with a unit, such as `"30s"`.
    pub default_ttl: Option<Duration>,
    /// See [`RegistryBuilder::default_handover`]. Written as `"off"`, or as a number of passes and a duration, such as
    /// `"64 in 10ms"`.
    pub default_handover: Option<Handover>,
    /// See [`RegistryBuilder::allow_unregistered`].
    pub allow_unregistered: Vec<String>,
}

impl Config {
    /// Merges another configuration into this one, as the environment overrides a file.
    ///
    /// The other one's defaults take precedence, and so do its backends, name by name. The names that may stay
    /// unregistered are those of both.
    #[must_use]
    pub fn overridden_by(mut self, other: Self) -> Self {
        self.backends.extend(other.backends);
        self.default_backend = other.default_backend.or(self.default_backend);
        self.default_ttl = other.default_ttl.or(self.default_ttl);
        self.default_handover = other.default_handover.or(self.default_handover);
        self.allow_unregistered.extend(other.allow_unregistered);
        self
    }

    /// Connects to all backends concurrently; see [`connect`](crate::connect()).
    ///
    /// More backends can be added to the returned builder before it is [installed](RegistryBuilder::install).
    ///
    /// # Errors
    /// A URL that cannot be found, or a backend that cannot be connected to. No error shows a password.
    ///
    /// # Cancel safety
    /// Cancel safe: connections in progress are closed.
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
        if let Some(handover) = self.default_handover {
            builder = builder.default_handover(handover);
        }
        Ok(self.allow_unregistered.iter().fold(builder, RegistryBuilder::allow_unregistered))
    }
}
