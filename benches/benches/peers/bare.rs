//! The limit on Redis: the least that any client could send for a lock, over one shared connection.
//!
//! An acquire is one command, `SET NX PX`; a release must compare before it deletes, so it is a script of
//! one comparison. No token, no wake-up of waiters, no tombstone.

use std::sync::LazyLock;

use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_runtime::OwnerId;
use redis::aio::ConnectionLike;
use redis::{RedisResult, Script, Value};

/// The limit's name.
pub const NAME: &str = "SET NX, script";

pub const TTL_MS: u64 = 30_000;

static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    )
});

/// Acquires and releases.
pub async fn cycle(connection: &mut impl ConnectionLike, key: &str) -> RedisResult<()> {
    let owner = OwnerId::random().to_string();
    let mut set = redis::cmd("SET");
    set.arg(key).arg(&owner).arg("NX").arg("PX").arg(TTL_MS);
    let set: Value = set.query_async(connection).await?;
    assert_eq!(set, Value::Okay, "nobody else wants it");
    let deleted: u8 = RELEASE.key(key).arg(&owner).invoke_async(connection).await?;
    assert_eq!(deleted, 1, "it was held");
    Ok(())
}

/// This many tasks, each with a key of its own.
pub fn alone<C>(connection: C, tasks: u32) -> Contender
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    let run = in_tasks(tasks, move |task, mut turns| {
        let mut connection = connection.clone();
        async move {
            let key = format!("bare:{task}");
            while turns.again() {
                cycle(&mut connection, &key).await.expect("the server runs");
            }
            turns
        }
    });
    Contender::new(Role::Limit, NAME, run)
}

/// A connection to one server.
pub async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("the server runs")
}
