//! `dlock ls` and `dlock who`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use dlock_runtime::backend::{Holder, LockState, Waiter};
use dlock_runtime::{ClientInfo, Mode};
use serde_json::{Value, json};

use crate::arguments::StoreArguments;
use crate::exit::{Failure, NOT_FOUND};
use crate::store;

pub async fn list(
    arguments: &StoreArguments,
    prefix: &str,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let locks = inspect(arguments, prefix).await?;
    if as_json {
        let locks: Vec<_> = locks.iter().map(of_lock).collect();
        println!("{:#}", Value::from(locks));
    } else {
        print(&table(&locks));
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn who(
    arguments: &StoreArguments,
    key: &str,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let locks = inspect(arguments, key).await?;
    let lock = locks.into_iter().find(|lock| lock.key.as_str() == key);
    let Some(lock) = lock else {
        if as_json {
            println!("null");
        } else {
            println!("nobody holds `{key}`, and nobody waits for it");
        }
        return Ok(ExitCode::from(NOT_FOUND));
    };
    if as_json {
        println!("{:#}", of_lock(&lock));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["", "MODE", "CLIENT", "SINCE", "TOKEN", "ENDS IN"].map(str::to_owned)];
    rows.extend(lock.holders.iter().map(|holder| {
        let [mode, client, since, token, ends] = columns(holder);
        ["holds".to_owned(), mode, client, since, token, ends]
    }));
    rows.extend(lock.waiters.iter().map(|waiter| {
        let (client, since) = client(waiter.client_info.as_ref());
        ["waits".to_owned(), mode(waiter.mode), client, since, String::new(), String::new()]
    }));
    print(&rows);
    Ok(ExitCode::SUCCESS)
}

async fn inspect(arguments: &StoreArguments, prefix: &str) -> Result<Vec<LockState>, Failure> {
    Ok(store::connect(arguments).await?.locks.inspect(prefix).await?)
}

/// One row for each holder, and for each lock that is only waited for.
fn table(locks: &[LockState]) -> Vec<[String; 7]> {
    let head = ["KEY", "MODE", "CLIENT", "SINCE", "TOKEN", "ENDS IN", "WAITING"];
    let mut rows = vec![head.map(str::to_owned)];
    for lock in locks {
        let (key, waiting) = (lock.key.to_string(), lock.waiters.len().to_string());
        if lock.holders.is_empty() {
            let none = || "-".to_owned();
            rows.push([key.clone(), none(), none(), none(), none(), none(), waiting.clone()]);
        }
        for holder in &lock.holders {
            let [mode, client, since, token, ends] = columns(holder);
            rows.push([key.clone(), mode, client, since, token, ends, waiting.clone()]);
        }
    }
    rows
}

fn columns(holder: &Holder) -> [String; 5] {
    let (client, since) = client(holder.client_info.as_ref());
    let client = match holder.owner {
        None => format!("(resting) {client}"),
        Some(_) if holder.revoked => format!("(revoked) {client}"),
        Some(_) => client,
    };
    let ends = short(holder.expires_in);
    [mode(holder.mode), client, since, holder.token.to_string(), ends]
}

pub fn mode(mode: Mode) -> String {
    match mode {
        Mode::Shared => "shared".to_owned(),
        Mode::Permits(permits) => format!("{permits} permits"),
        _ => "exclusive".to_owned(),
    }
}

/// Who it is, and for how long.
fn client(info: Option<&ClientInfo>) -> (String, String) {
    let Some(info) = info else { return ("unknown".to_owned(), "-".to_owned()) };
    let since = SystemTime::now().duration_since(info.since()).unwrap_or_default();
    (info.to_string(), short(since))
}

/// With its two largest units.
fn short(duration: Duration) -> String {
    let duration = if duration < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    let words = humantime::format_duration(duration).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub fn print<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

pub fn of_lock(lock: &LockState) -> Value {
    json!({
        "key": lock.key.as_str(),
        "holders": lock.holders.iter().map(of_holder).collect::<Vec<_>>(),
        "waiters": lock.waiters.iter().map(of_waiter).collect::<Vec<_>>(),
    })
}

fn of_holder(holder: &Holder) -> Value {
    json!({
        "owner": holder.owner.map(|owner| owner.to_string()),
        "token": holder.token.get(),
        "mode": mode(holder.mode),
        "expires_in_ms": millis(holder.expires_in),
        "revoked": holder.revoked,
        "client": holder.client_info.as_ref().map(of_client),
    })
}

fn of_waiter(waiter: &Waiter) -> Value {
    json!({
        "owner": waiter.owner.map(|owner| owner.to_string()),
        "mode": mode(waiter.mode),
        "client": waiter.client_info.as_ref().map(of_client),
    })
}

fn of_client(client: &ClientInfo) -> Value {
    let since = client.since().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!({
        "host": client.host(),
        "process_id": client.process_id(),
        "label": client.label(),
        "since_unix_ms": millis(since),
    })
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
