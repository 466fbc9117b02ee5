//! `dlock revoke`, `dlock release`, `dlock health`, `dlock man`.

use std::io::{IsTerminal as _, stdin, stdout};
use std::process::ExitCode;
use std::time::Instant;

use clap::CommandFactory as _;
use serde_json::json;

use crate::arguments::{Arguments, StoreArguments};
use crate::confirm::is_confirmed;
use crate::exit::{Failure, NOT_FOUND, USAGE};
use crate::store;

/// A key that a health check looks at. Nobody needs to hold it.
const PROBE: &str = "dlock:health";

pub async fn revoke(arguments: &StoreArguments, key: &str) -> Result<ExitCode, Failure> {
    let locks = store::connect(arguments).await?.locks;
    let was_held = locks.lock(key).revoke().await?;
    Ok(ended(key, was_held, "revoked: the lock is free when its holder has noticed"))
}

pub async fn force_release(
    arguments: &StoreArguments,
    key: &str,
    _is_forced: bool,
    is_certain: bool,
) -> Result<ExitCode, Failure> {
    if !is_certain && stdin().is_terminal() && !is_confirmed(&question(key)) {
        return Err(Failure::new(USAGE, "nothing was changed"));
    }
    let locks = store::connect(arguments).await?.locks;
    let was_held = locks.lock(key).force_release().await?;
    Ok(ended(key, was_held, "released by force: its former holder may still be running"))
}

fn question(key: &str) -> String {
    format!(
        "The holder of `{key}` may still be running, and another one can get the lock at once. Release it?"
    )
}

fn ended(key: &str, was_held: bool, done: &str) -> ExitCode {
    if was_held {
        println!("`{key}` was {done}");
        ExitCode::SUCCESS
    } else {
        println!("nobody holds `{key}`");
        ExitCode::from(NOT_FOUND)
    }
}

pub async fn health(arguments: &StoreArguments, as_json: bool) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let locks = store::connect(arguments).await?.locks;
    let connected = began.elapsed();
    let asked = Instant::now();
    locks.lock(PROBE).inspect().await?;
    let answered = asked.elapsed();
    if as_json {
        let millis = |elapsed: std::time::Duration| elapsed.as_secs_f64() * 1e3;
        println!(
            "{}",
            json!({ "connect_ms": millis(connected), "round_trip_ms": millis(answered) })
        );
    } else {
        println!("ok: connected in {connected:.1?}, answered in {answered:.1?}");
    }
    Ok(ExitCode::SUCCESS)
}

pub fn man() -> Result<ExitCode, Failure> {
    clap_mangen::Man::new(Arguments::command())
        .render(&mut stdout())
        .map_err(|error| Failure::unavailable(format!("cannot write the page: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
