//! Registries built from a service's configuration, and the errors for an invalid one.

use std::time::Duration;

use dlock_runtime::config::{Config, ConfigError, Source};
use dlock_runtime::{Handover, distributed_lock};

const URL: &str = "redis://:secret@127.0.0.1:1/";

#[distributed_lock(key = "configured:<id>", backend = "orders")]
async fn order(id: u64) -> anyhow::Result<u64> {
    Ok(id)
}

/// A service's own configuration.
#[derive(Debug, serde::Deserialize)]
struct Shop {
    locks: Config,
}

fn problem(toml: &str) -> String {
    Config::from_toml(toml).expect_err(toml).to_string()
}

fn variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

#[tokio::test]
async fn a_file_makes_a_registry() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, secret, stock] =
        ["locks.toml", "secret", "stock.db"].map(|name| folder.path().join(name));
    std::fs::write(&secret, format!("sqlite:{}\n", stock.display())).expect("written");
    let text = format!(
        "default_backend = 'orders'\ndefault_ttl = '7s'\ndefault_handover = '16 in 5ms'\n\
         [backends]\norders = 'memory:'\nstock = {{ file = '{}' }}\n",
        secret.display()
    );
    std::fs::write(&file, text).expect("written");

    let config = Config::from_file(&file).expect("a configuration");
    assert_eq!(config.default_ttl, Some(Duration::from_secs(7)));
    let limit = Handover::up_to(16, Duration::from_millis(5));
    assert_eq!(config.default_handover, Some(limit));
    let registry = config.connect().await.expect("connected").build().expect("a registry");
    assert_eq!(registry.backends().collect::<Vec<_>>(), ["orders", "stock"]);
    assert_eq!(registry.scope(order(4)).await.expect("the backend is there"), 4);
    let guard = registry.lock("a").backend("stock").acquire().await.expect("the file is there");
    assert!(guard.remaining() <= Duration::from_secs(7), "{:?}", guard.remaining());
    assert!(stock.exists());
    guard.release().await.expect("it was held");
}

#[tokio::test]
async fn a_registry_without_a_functions_backend_is_not_installed() {
    let config = Config::from_toml("backends.other = 'memory:'").expect("a configuration");
    let refusal = config.connect().await.expect("connected").install().unwrap_err().to_string();
    assert!(
        refusal.contains("tests/engine/config.rs") && refusal.contains("`orders`"),
        "{refusal}"
    );
}

#[tokio::test]
async fn omitted_settings_use_the_registrys_defaults() {
    let config = Config::from_toml("backends.only = 'memory:'").expect("a configuration");
    let registry = config.connect().await.expect("connected").build().expect("a registry");
    let guard = registry.lock("a").acquire().await.expect("the only backend is the default");
    assert!(guard.remaining() > Duration::from_secs(20), "{:?}", guard.remaining());
    assert_eq!(Config::from_toml("").expect("nothing"), Config::default());
    let empty = Config::default().connect().await.expect("nothing to connect to").build();
    assert!(empty.is_err());
}

#[test]
fn the_configuration_embeds_in_any_serde_format() {
    let json = r#"{"locks": {
        "backends": {"a": "memory:", "b": {"env": "B_URL"}, "c": {"file": "/run/c"}},
        "default_ttl": "1m 30s",
        "allow_unregistered": ["d"]
    }}"#;
    let Shop { locks } = serde_json::from_str(json).expect("a shop");
    let sources: Vec<_> = locks.backends.into_values().collect();
    let expected = [
        Source::Url("memory:".into()),
        Source::Variable { env: "B_URL".into() },
        Source::File { file: "/run/c".into() },
    ];
    assert_eq!(sources, expected);
    assert_eq!(locks.default_ttl, Some(Duration::from_secs(90)));
    assert_eq!(locks.allow_unregistered, ["d"]);
}

#[test]
fn the_environment_overrides_a_file() {
    let file = Config::from_toml(
        "default_backend = 'a'\ndefault_ttl = '7s'\ndefault_handover = '9 in 1s'\nallow_unregistered = ['x']\n\
         [backends]\na = 'memory:'\nb = 'memory:'",
    );
    let environment = variables(&[
        ("DLOCK_BACKEND_B", URL),
        ("DLOCK_BACKEND_TWO_WORDS", "memory:"),
        ("DLOCK_DEFAULT_BACKEND", "b"),
        ("DLOCK_DEFAULT_HANDOVER", "off"),
        ("DLOCK_ALLOW_UNREGISTERED", "y, z"),
        ("DLOCK_SOMEBODY_ELSE", "?"),
        ("HOME", "/"),
    ]);
    let config = file.expect("a file").overridden_by(environment.expect("an environment"));
    let backends: Vec<_> = config.backends.iter().map(|(name, at)| (&**name, at.clone())).collect();
    let memory = Source::Url("memory:".into());
    let expected = [("a", memory.clone()), ("b", Source::Url(URL.into())), ("two_words", memory)];
    assert_eq!(backends, expected);
    assert_eq!(config.default_backend.as_deref(), Some("b"));
    assert_eq!(config.default_ttl, Some(Duration::from_secs(7)));
    assert_eq!(config.default_handover, Some(Handover::OFF));
    assert_eq!(config.allow_unregistered, ["x", "y", "z"]);
}

#[test]
fn misspelt_variables_are_distinguished_from_unrelated_ones() {
    for (name, meant) in [
        ("DLOCK_DEFAULT_BACKENDS", "`DLOCK_DEFAULT_BACKEND`"),
        ("DLOCK_DEFAULT_HAND_OVER", "`DLOCK_DEFAULT_HANDOVER`"),
        ("DLOCK_DEFUALT_TTL", "`DLOCK_DEFAULT_TTL`"),
        ("dlock_default_ttl", "`DLOCK_DEFAULT_TTL`"),
        ("DLOCK_ALLOW_UNREGISTRED", "`DLOCK_ALLOW_UNREGISTERED`"),
        ("DLOCK_BACKENDS_ORDERS", "`DLOCK_BACKEND_<NAME>`"),
        ("DLOCK_BAKCEND_ORDERS", "`DLOCK_BACKEND_<NAME>`"),
        ("DLOCK_BACKEND", "`DLOCK_BACKEND_<NAME>`"),
    ] {
        let message = variables(&[(name, URL)]).expect_err(name).to_string();
        let expected = format!("environment variable `{name}` is unknown; did you mean {meant}?");
        assert_eq!(message, expected);
    }
    let message = variables(&[("DLOCK_BACKEND_", URL)]).expect_err("no name").to_string();
    assert!(message.contains("names no backend") && !message.contains("secret"), "{message}");
    for name in ["DLOCK_SOMEBODY_ELSE", "DLOCK_BACKUP_DIRECTORY", "DLOCKER_DEFAULT_TTL", "HOME"] {
        assert_eq!(variables(&[(name, URL)]).expect(name), Config::default());
    }
}

#[test]
fn mistakes_are_reported_with_their_position() {
    for (toml, expected) in [
        ("\n[backend]\na = 'memory:'", ":2:2: unknown field `backend`, expected one of `backends`"),
        ("default_ttl = '5'", ":1:15: not a duration (time unit needed"),
        ("default_ttl = 5", "expected a duration with its unit, such as \"30s\""),
        ("default_handover = 64", "expected \"off\", or a limit such as \"64 in 10ms\""),
        ("default_handover = '64'", ":1:20: not a limit; write \"off\", or a number of passes"),
        ("default_handover = '0 in 1s'", ":1:20: not a number of passes from 1 to 1023"),
        ("default_handover = '5 in 0s'", ":1:20: a limit of no time; write \"off\""),
        ("default_handover = '5 in 7'", ":1:20: not a duration"),
        ("[backends]\na = 5", ":2:5: expected a backend's URL, `{ env ="),
        ("[backends]\na = { env = 'A', file = 'b' }", ":2:5: expected a backend's URL"),
        ("[backends]\na = 'memory:'\na = 'memory:'", ":3:1: duplicate key"),
        ("allow_unregistered = 'a'", ":1:22: expected a list of backend names"),
    ] {
        let message = problem(toml);
        assert!(
            message.starts_with("configuration") && message.contains(expected),
            "{toml}\n{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    for (name, value, expected) in [
        ("DLOCK_DEFAULT_TTL", "5", "environment variable `DLOCK_DEFAULT_TTL` is not a duration"),
        ("DLOCK_DEFAULT_HANDOVER", "on", "`DLOCK_DEFAULT_HANDOVER` is not a limit"),
        ("DLOCK_DEFAULT_BACKEND", URL, "is a URL where a backend name belongs"),
        ("DLOCK_ALLOW_UNREGISTERED", URL, "is a URL where a backend name belongs"),
    ] {
        let message = variables(&[(name, value)]).expect_err(name).to_string();
        assert!(message.contains(expected) && !message.contains("secret"), "{message}");
    }
    let twice = variables(&[("DLOCK_BACKEND_A", "memory:"), ("DLOCK_BACKEND_a", "memory:")]);
    assert!(twice.unwrap_err().to_string().contains("names the backend `a` a second time"));
}

#[tokio::test]
async fn no_error_repeats_a_password() {
    for toml in [
        format!("backends = '{URL}'"),
        format!("backends = ['{URL}']"),
        format!("default_backend = '{URL}'"),
        format!("default_backend = ['{URL}']"),
        format!("default_ttl = '{URL}'"),
        format!("allow_unregistered = '{URL}'"),
        format!("allow_unregistered = ['{URL}']"),
        format!("[backends]\na = '{URL}"),
        format!("[backends]\na = {URL}"),
        format!("[backends]\na = ['{URL}']"),
        format!("[backends]\na = {{ url = '{URL}' }}"),
        format!("[backends]\n'{URL}' = 'memory:'"),
    ] {
        let message = problem(&toml);
        assert!(!message.contains("secret"), "{message}");
    }
    let json = serde_json::json!({ "locks": URL }).to_string();
    let message = serde_json::from_str::<Shop>(&json).unwrap_err().to_string();
    assert!(message.starts_with("invalid type: a string, expected a table"), "{message}");
    let config = Config::from_toml(&format!("backends.a = '{URL}'")).expect("a configuration");
    assert_eq!(format!("{:?}", config.backends), "{\"a\": Url(redis:…)}");
    let message = config.connect().await.unwrap_err().to_string();
    assert!(message.starts_with("backend `a`: ") && !message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_missing_url_is_reported() {
    let variable = Config::from_toml("backends.a = { env = 'DLOCK_TESTS_NOT_SET' }");
    let message = variable.expect("a configuration").connect().await.unwrap_err().to_string();
    let expected =
        "environment variable `DLOCK_TESTS_NOT_SET` is not set; backend `a` reads its URL from it";
    assert_eq!(message, expected);
    let file = Config::from_toml("backends.a = { file = '/nowhere/secret' }");
    let message = file.expect("a configuration").connect().await.unwrap_err().to_string();
    assert!(message.starts_with("cannot read `/nowhere/secret`: "), "{message}");
    let message = Config::from_file("/nowhere/locks.toml").unwrap_err().to_string();
    assert!(message.starts_with("cannot read `/nowhere/locks.toml`: "), "{message}");
}
