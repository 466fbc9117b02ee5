//! The `serde` representation of a [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Config, Source};
use crate::options::Handover;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    backends: Table<BTreeMap<String, Source>>,
    default_backend: Option<String>,
    default_ttl: Option<Ttl>,
    default_handover: Option<Limit>,
    #[serde(default)]
    allow_unregistered: List,
}

#[derive(Deserialize)]
#[serde(try_from = "Text")]
struct Ttl(Duration);

#[derive(Deserialize)]
#[serde(try_from = "LimitText")]
struct Limit(Handover);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"off\", or a limit such as \"64 in 10ms\"")]
enum LimitText {
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a duration with its unit, such as \"30s\"")]
enum Text {
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(untagged, expecting = "expected a list of backend names")]
enum List {
    #[default]
    None,
    Names(Vec<String>),
}

/// A table. `serde`'s own error would repeat a string that was found instead.
#[derive(Default)]
struct Table<T>(T);

struct TableVisitor<T>(PhantomData<T>);

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Table(fields) = Table::<Fields>::deserialize(deserializer)?;
        let config = Self {
            backends: fields.backends.0,
            default_backend: fields.default_backend,
            default_ttl: fields.default_ttl.map(|Ttl(ttl)| ttl),
            default_handover: fields.default_handover.map(|Limit(limit)| limit),
            allow_unregistered: match fields.allow_unregistered {
                List::None => vec![],
                List::Names(names) => names,
            },
        };
        let names = config.backends.keys().chain(&config.default_backend);
        for name in names.chain(&config.allow_unregistered) {
            check_name(name).map_err(D::Error::custom)?;
        }
        Ok(config)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // With `deserialize_map`, some formats would not pass a string to the visitor.
        deserializer.deserialize_any(TableVisitor(PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
        Err(E::invalid_type(Unexpected::Other("a string"), &self))
    }
}

impl TryFrom<Text> for Ttl {
    type Error = String;

    fn try_from(Text::Text(text): Text) -> Result<Self, String> {
        duration(&text).map(Self)
    }
}

/// Parses durations in the same way as the attribute, for files and for the environment.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let problem =
        |error| format!("not a duration ({error}); write a number and a unit, such as \"30s\"");
    humantime::parse_duration(text.trim()).map_err(problem)
}

impl TryFrom<LimitText> for Limit {
    type Error = String;

    fn try_from(LimitText::Text(text): LimitText) -> Result<Self, String> {
        handover(&text).map(Self)
    }
}

/// Parses what the attribute's `handover` accepts.
pub(super) fn handover(text: &str) -> Result<Handover, String> {
    const EXPECTED: &str =
        "write \"off\", or a number of passes and a duration, such as \"64 in 10ms\"";
    if text.trim() == "off" {
        return Ok(Handover::OFF);
    }
    let (passes, within) =
        text.split_once(" in ").ok_or_else(|| format!("not a limit; {EXPECTED}"))?;
    let passes = passes.trim().parse().ok();
    let passes = passes.filter(|passes| (1..=Handover::MAX_PASSES).contains(passes));
    let passes = passes.ok_or_else(|| {
        format!("not a number of passes from 1 to {}; {EXPECTED}", Handover::MAX_PASSES)
    })?;
    let within = duration(within)?;
    if within.is_zero() {
        return Err("a limit of no time; write \"off\" to pass no lease".to_owned());
    }
    Ok(Handover::up_to(passes, within))
}

/// Names are repeated in errors and logs, and a URL must not be.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.contains("://") {
        return Err("a URL where a backend name belongs".to_owned());
    }
    Ok(())
}
