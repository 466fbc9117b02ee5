//! The engine without a server: holds, configuration, telemetry, the file backend, the conformance
//! suite, the documents, and what is deployed beside a service.

mod blocking;
mod config;
mod contention;
mod cooperation;
mod deploy;
mod documents;
mod holds;
mod sqlite;
mod suite;
mod telemetry;
mod third_party;
