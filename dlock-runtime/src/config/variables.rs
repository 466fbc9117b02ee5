//! A configuration in environment variables.

use super::fields::{check_name, duration, handover};
use super::{Config, ConfigError, Source};
use crate::nearest::nearest;

const PREFIX: &str = "DLOCK_";

/// What may follow the prefix, besides `BACKEND_` and a name.
const OPTIONS: &[&str] =
    &["DEFAULT_BACKEND", "DEFAULT_TTL", "DEFAULT_HANDOVER", "ALLOW_UNREGISTERED"];

impl Config {
    /// Reads the environment of this process.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `DLOCK_BACKEND_<NAME>` | the URL of the backend `<name>`, in lower case |
    /// | `DLOCK_DEFAULT_BACKEND` | [`default_backend`](Self::default_backend) |
    /// | `DLOCK_DEFAULT_TTL` | [`default_ttl`](Self::default_ttl), such as `30s` |
    /// | `DLOCK_DEFAULT_HANDOVER` | [`default_handover`](Self::default_handover), such as `64 in 10ms`, or `off` |
    /// | `DLOCK_ALLOW_UNREGISTERED` | [`allow_unregistered`](Self::allow_unregistered), names separated by commas |
    ///
    /// `DLOCK_URL`, `DLOCK_KEY` and `DLOCK_TOKEN` belong to the command `dlock`. Any other variable that begins with
    /// `DLOCK_` is ignored with a warning, unless its name looks like a misspelling of one of these, which is an error.
    ///
    /// # Errors
    /// A variable with an invalid value or a misspelt name. The error shows its name but not its value.
    pub fn from_env() -> Result<Self, ConfigError> {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| is_ours(name))?;
            Some((name, value))
        });
        let texts = ours.map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError::Variable { name, problem: "is not UTF-8".to_owned() }),
        });
        Self::from_vars(texts.collect::<Result<Vec<_>, _>>()?)
    }

    /// Reads these variables like [`from_env`](Self::from_env).
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
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
            Some("DEFAULT_HANDOVER") => {
                self.default_handover = Some(handover(&value).map_err(is)?);
            }
            Some("ALLOW_UNREGISTERED") => {
                check_name(&value).map_err(is)?;
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                self.allow_unregistered.extend(names.map(str::to_owned));
            }
            // For and from the command `dlock`.
            Some("URL" | "KEY" | "TOKEN") => {}
            Some(option) => {
                let Some(name) = option.strip_prefix("BACKEND_") else { return unknown(variable) };
                if name.is_empty() {
                    return Err("names no backend".to_owned());
                }
                let name = name.to_ascii_lowercase();
                if self.backends.insert(name.clone(), Source::Url(value)).is_some() {
                    return Err(format!("names the backend `{name}` a second time"));
                }
            }
            None => return unknown(variable),
        }
        Ok(())
    }
}

/// Includes lower case, which is a misspelling.
fn is_ours(variable: &str) -> bool {
    let prefix = variable.get(..PREFIX.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

/// Ignores variables of other programs. A misspelling is an error: ignoring it would leave the service with other locks
/// than configured.
fn unknown(variable: &str) -> Result<(), String> {
    if !is_ours(variable) {
        return Ok(());
    }
    let option = &variable[PREFIX.len()..];
    if let Some(near) = nearest(option, OPTIONS) {
        return Err(format!("is unknown; did you mean `{PREFIX}{near}`?"));
    }
    // A misspelling of `BACKEND`, followed by the name of a backend.
    let family = option.split('_').next().unwrap_or_default();
    if nearest(family, &["BACKEND"]).is_some() {
        return Err(format!("is unknown; did you mean `{PREFIX}BACKEND_<NAME>`?"));
    }
    tracing::warn!(target: "dlock", variable, "ignored an unknown environment variable that begins with `DLOCK_`");
    Ok(())
}
