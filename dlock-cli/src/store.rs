//! Finds the store and connects to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dlock_runtime::config::{Config, Source};
use dlock_runtime::{Backend as _, Registry};

use crate::arguments::StoreArguments;
use crate::exit::{CONFIG, Failure, USAGE};

/// Read if no other file is named.
const DEFAULT_FILE: &str = "dlock.toml";

/// What a store that was given by its URL is called.
const UNNAMED: &str = "store";

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(10);

/// The store that was asked for.
pub struct Store {
    /// With this one backend.
    pub locks: Registry,
    /// Its locks are bound to a session, which is proved for less than a ttl.
    pub is_session: bool,
}

/// Connects to it.
pub async fn connect(arguments: &StoreArguments) -> Result<Store, Failure> {
    let (name, url) = find(arguments)?;
    let connecting = tokio::time::timeout(CONNECTING, dlock_runtime::connect(&url)).await;
    let backend = connecting.map_err(|_| {
        Failure::unavailable(format!("cannot connect to backend `{name}` within {CONNECTING:?}"))
    })??;
    let is_session = backend.capabilities().session;
    let locks = Registry::builder().backend(&name, backend).default_backend(&name).build()?;
    Ok(Store { locks, is_session })
}

fn url(name: &str, source: &Source) -> Result<String, Failure> {
    match source {
        Source::Url(url) => Ok(url.clone()),
        Source::Variable { env } => std::env::var(env).map_err(|_| {
            let problem =
                format!("the variable `{env}`, with the URL of backend `{name}`, is not set");
            Failure::new(CONFIG, problem)
        }),
        Source::File { file } => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(CONFIG, format!("cannot read `{}`: {error}", file.display()))
            })?;
            Ok(text.trim().to_owned())
        }
        _ => Err(Failure::new(CONFIG, format!("backend `{name}` has an unknown kind of source"))),
    }
}

/// The name and the URL of the backend.
pub fn find(arguments: &StoreArguments) -> Result<(String, String), Failure> {
    let (name, source) = source(arguments)?;
    let url = url(&name, &source)?;
    if url.starts_with("memory:") {
        let problem = "`memory:` is in this process alone, so nobody else would see its locks";
        return Err(Failure::new(USAGE, problem));
    }
    Ok((name, url))
}

/// The name and the source of the backend.
fn source(arguments: &StoreArguments) -> Result<(String, Source), Failure> {
    if let Some(path) = &arguments.backend_file {
        return Ok((UNNAMED.to_owned(), Source::File { file: path.clone() }));
    }
    if let Some(url) = arguments.backend.as_ref().filter(|text| is_url(text)) {
        return Ok((UNNAMED.to_owned(), Source::Url(url.clone())));
    }
    let mut config = configuration(arguments.config.as_deref())?;
    let default = config.default_backend.take();
    let name = arguments.backend.clone().or(default);
    let name = match name {
        Some(name) => name,
        None if config.backends.len() == 1 => {
            config.backends.keys().next().cloned().unwrap_or_default()
        }
        None => return Err(Failure::new(USAGE, missing(&config))),
    };
    match config.backends.remove(&name) {
        Some(source) => Ok((name, source)),
        None => Err(Failure::new(CONFIG, unknown(&name, &config))),
    }
}

fn configuration(file: Option<&Path>) -> Result<Config, Failure> {
    let default = PathBuf::from(DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default.as_path()));
    let in_file = file.map(Config::from_file).transpose()?.unwrap_or_default();
    Ok(in_file.overridden_by(Config::from_env()?))
}

/// The store as people call it, without anything that may be secret: the backend's name if it has one, the scheme, and
/// the hosts if it is certain which part of the URL they are.
pub fn shown(name: &str, url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let place = match rest.strip_prefix("//") {
        Some(rest) => hosts(rest).map(|hosts| format!("{scheme}://{hosts}")),
        None => file(rest).map(|file| format!("{scheme}:{file}")),
    };
    let place = place.unwrap_or_else(|| format!("{scheme}:"));
    if name == UNNAMED { place } else { format!("{name} ({place})") }
}

/// A password may have any of the characters that end the hosts.
fn hosts(rest: &str) -> Option<&str> {
    let (user, after) = rest.rsplit_once('@').unwrap_or(("", rest));
    let hosts = after.split(['/', '?', '#']).next().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:,[]".contains(&byte);
    (!user.contains(['?', '#']) && !hosts.is_empty() && hosts.bytes().all(fits)).then_some(hosts)
}

fn file(rest: &str) -> Option<&str> {
    Path::new(rest.split('?').next()?).file_name()?.to_str()
}

/// Has it a scheme?
fn is_url(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains('/'))
}

fn missing(config: &Config) -> String {
    if config.backends.is_empty() {
        return "where are the locks? Pass `--backend URL`, for example `--backend redis://localhost/`".to_owned();
    }
    format!("which store? Pass `--backend NAME` with one of: {}", names(config))
}

fn unknown(name: &str, config: &Config) -> String {
    if config.backends.is_empty() {
        return format!(
            "no backend `{name}`: it is not a URL, and neither `{DEFAULT_FILE}` nor a variable `DLOCK_BACKEND_{}` names it",
            name.to_ascii_uppercase()
        );
    }
    format!("no backend `{name}`; there are: {}", names(config))
}

fn names(config: &Config) -> String {
    config.backends.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_shown_without_its_password() {
        for (url, place) in [
            ("redis://cache.internal:6379/0", "redis://cache.internal:6379"),
            ("redis://user:s3cret@cache.internal/", "redis://cache.internal"),
            ("redis://:s3/cret@cache/", "redis://cache"),
            ("redis://:s3@cret@cache/", "redis://cache"),
            ("redis://:s3?cret@cache/", "redis:"),
            ("postgres://host/db?password=s3@cret", "postgres:"),
            ("postgres:///db?password=s3cret", "postgres:"),
            ("redis+sentinel://u:s3cret@a:1,b:2/main", "redis+sentinel://a:1,b:2"),
            ("etcd://[::1]:2379", "etcd://[::1]:2379"),
            ("sqlite:/var/lib/locks.db?mode=rw", "sqlite:locks.db"),
        ] {
            assert_eq!(shown(UNNAMED, url), place, "{url}");
        }
        assert_eq!(shown("jobs", "redis://:s3cret@cache/"), "jobs (redis://cache)");
    }
}
