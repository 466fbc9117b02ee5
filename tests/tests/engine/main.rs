//! The engine without a server: holds, configuration, telemetry, the file backend, and the conformance suite.

mod config;
mod cooperation;
mod holds;
mod sqlite;
mod suite;
mod telemetry;
