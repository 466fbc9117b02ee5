//! The engine without a server: holds, configuration, telemetry, the file backend, the conformance
//! suite, and the documents.

mod blocking;
mod config;
mod contention;
mod cooperation;
mod documents;
mod holds;
mod sqlite;
mod suite;
mod telemetry;
mod third_party;
