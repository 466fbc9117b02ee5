//! A configuration in environment variables.

use super::fields::{check_name, duration};
use super::{Config, ConfigError, Source};

const PREFIX: &str = "DLOCK_";

impl Config {
    /// Reads the environment of this process:
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `DLOCK_BACKEND_<NAME>` | the URL of the backend `<name>`, in lower case |
    /// | `DLOCK_DEFAULT_BACKEND` | [`default_backend`](Self::default_backend) |
    /// | `DLOCK_DEFAULT_TTL` | [`default_ttl`](Self::default_ttl), such as `30s` |
    /// | `DLOCK_ALLOW_UNREGISTERED` | [`allow_unregistered`](Self::allow_unregistered), names with commas between them |
    ///
    /// # Errors
    /// A variable whose value means nothing.
    pub fn from_env() -> Result<Self, ConfigError> {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value))
        });
        let texts = ours.map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError::Variable { name, problem: "is not UTF-8".to_owned() }),
        });
        Self::from_vars(texts.collect::<Result<Vec<_>, _>>()?)
    }

    /// Reads variables as [`from_env`](Self::from_env) does, wherever they come from.
    ///
    /// # Errors
    /// The same.
    pub fn from_vars(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (variable, value) in variables {
            config
                .set(&variable, value)
                .map_err(|problem| ConfigError::Variable { name: variable, problem })?;
        }
        Ok(config)
    }

    fn set(&mut self, variable: &str, value: String) -> Result<(), String> {
        let is = |problem: String| format!("is {problem}");
        match variable.strip_prefix(PREFIX) {
            Some("DEFAULT_BACKEND") => {
                check_name(&value).map_err(is)?;
                self.default_backend = Some(value);
            }
            Some("DEFAULT_TTL") => self.default_ttl = Some(duration(&value).map_err(is)?),
            Some("ALLOW_UNREGISTERED") => {
                check_name(&value).map_err(is)?;
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                self.allow_unregistered.extend(names.map(str::to_owned));
            }
            Some(option) => {
                // Whatever else begins so is somebody else's.
                let Some(name) = option.strip_prefix("BACKEND_") else { return Ok(()) };
                let name = name.to_ascii_lowercase();
                if self.backends.insert(name.clone(), Source::Url(value)).is_some() {
                    return Err(format!("names the backend `{name}` a second time"));
                }
            }
            None => {}
        }
        Ok(())
    }
}
