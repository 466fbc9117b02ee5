//! The raw side of the Redis benchmark: the commands that a lock's cycle is made of, sent over the
//! same client without dlock.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Script};

static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../dlock-runtime/src/stores/redis/acquire.lua")));
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../dlock-runtime/src/stores/redis/release.lua")));

/// One acquire and one release of a key that nobody else wants.
///
/// # Errors
/// Those of the server.
pub async fn raw_cycle(
    connection: &mut MultiplexedConnection,
    key: &str,
    owner: &str,
) -> RedisResult<()> {
    let lock = format!("dlock:{{{key}}}");
    let mut acquire = ACQUIRE.prepare_invoke();
    acquire.key(&lock).key(format!("{lock}:token")).key(format!("{lock}:gone:{owner}"));
    let _: (u8, i64) = acquire.arg(owner).arg(30_000).invoke_async(connection).await?;
    let mut release = RELEASE.prepare_invoke();
    release.key(&lock).key(format!("{lock}:gone:{owner}"));
    release.arg(owner).arg(0).arg(format!("{lock}:free")).arg(0);
    let _: u8 = release.invoke_async(connection).await?;
    Ok(())
}

/// How many commands clients have sent so far, those that scripts call not among them.
///
/// # Errors
/// Those of the server.
pub async fn commands_sent(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    // `INFO commandstats` counts both; these are what dlock's scripts call, and clients do not.
    const IN_SCRIPTS: [&str; 8] =
        ["get", "set", "del", "exists", "pexpire", "pttl", "time", "publish"];
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await?;
    let sent = info.lines().filter_map(|line| {
        let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let calls = stats.strip_prefix("calls=")?.split(',').next()?;
        (!IN_SCRIPTS.contains(&name) && name != "info").then(|| calls.parse::<u64>().ok())?
    });
    Ok(sent.sum())
}
