//! The settings of a Redis server.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError, RedisResult};

use super::Findings;

pub async fn examine(url: &str, findings: &mut Findings) {
    if let Err(error) = try_examine(url, findings).await {
        findings.unread(plain(&error));
    }
}

async fn try_examine(url: &str, findings: &mut Findings) -> RedisResult<()> {
    // Without dlock's own options.
    let server = url.split('?').next().unwrap_or_default();
    let mut connection = Client::open(server)?.get_multiplexed_async_connection().await?;
    let info = info(&mut connection).await?;
    role(&info, findings);
    persistence(&info, &mut connection, findings).await;
    eviction(&info, findings);
    Ok(())
}

/// The server's own report, by name.
async fn info(connection: &mut MultiplexedConnection) -> RedisResult<HashMap<String, String>> {
    let text: String = redis::cmd("INFO").query_async(connection).await?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

fn role(info: &HashMap<String, String>, findings: &mut Findings) {
    if info.get("role").is_some_and(|role| role != "master") {
        findings.danger(
            "this server is a replica, which takes no locks",
            "connect to the master; `redis+sentinel://` finds it after each failover",
        );
    }
    let replicas = info.get("connected_slaves").map_or("0", String::as_str);
    if replicas != "0" {
        findings.note(
            format_args!("{replicas} replicas: one that is promoted may not know the latest grants"),
            "`?replicas=1` in the URL makes a grant wait for a replica; fence what must not be written twice",
        );
    }
}

async fn persistence(
    info: &HashMap<String, String>,
    connection: &mut MultiplexedConnection,
    findings: &mut Findings,
) {
    if info.get("aof_enabled").is_some_and(|on| on == "1") {
        let fsync = setting(connection, "appendfsync").await;
        if fsync.as_deref().is_ok_and(|fsync| fsync != "always") {
            findings.note(
                "`appendfsync` is not `always`: after a crash, the server may not know the latest grants",
                "set `appendfsync always`, or fence what must not be written twice",
            );
        }
        return;
    }
    findings.note(
        "`appendonly` is off: a restart loses locks, and others may acquire them at once",
        "set `appendonly yes` and `appendfsync always` if locks have to survive a restart",
    );
}

fn eviction(info: &HashMap<String, String>, findings: &mut Findings) {
    let policy = info.get("maxmemory_policy").map_or("noeviction", String::as_str);
    if policy != "noeviction" {
        findings.danger(
            format_args!(
                "`maxmemory-policy` is `{policy}`: the server may evict locks that are held"
            ),
            "set `maxmemory-policy noeviction`",
        );
    }
    let limit = info.get("maxmemory").and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    let used = info.get("used_memory").and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    if limit > 0 && used > limit / 10 * 9 {
        findings.note(
            "more than nine tenths of `maxmemory` are used: when it is full, no lock can be acquired",
            "raise `maxmemory`, or give locks a server of their own",
        );
    }
}

async fn setting(connection: &mut MultiplexedConnection, name: &str) -> RedisResult<String> {
    let (_, value): (String, String) =
        redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await?;
    Ok(value)
}

/// In one line.
fn plain(error: &RedisError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
