//! Fenced values in Redis.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Script, ToRedisArgs};

use super::FencingError;
use crate::token::FencingToken;

static SET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/set.lua")));

/// Sets a value unless it was already set with a larger token.
///
/// `GET key` reads the value as usual. The token is stored under `key:fencing_token` and must live as
/// long as the value. In a Cluster, give the key a hash tag, such as `{stock:7}`, so that both share a
/// slot.
///
/// ```no_run
/// # async fn example(connection: &mut redis::aio::MultiplexedConnection, lock: &dlock_runtime::LockGuard) -> Result<(), dlock_runtime::fencing::FencingError> {
/// dlock_runtime::fencing::set(connection, "stock:7", 41, lock.fencing_token()).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`FencingError::Stale`] if a later holder has set it; [`FencingError::Store`] if Redis fails.
///
/// # Cancel safety
/// If the future is dropped, the value may or may not have been set. Setting it again is safe.
pub async fn set<C: ConnectionLike>(
    connection: &mut C,
    key: &str,
    value: impl ToRedisArgs,
    token: FencingToken,
) -> Result<(), FencingError> {
    let mut call = SET.prepare_invoke();
    call.key(key).key(format!("{key}:fencing_token")).arg(token.get()).arg(value);
    let newest: String = call.invoke_async(connection).await.map_err(FencingError::store)?;
    match newest.parse() {
        Ok(newest) if newest == token.get() => Ok(()),
        Ok(newest) => {
            Err(FencingError::Stale { presented: token, newest: FencingToken::new(newest) })
        }
        Err(error) => Err(FencingError::store(error)),
    }
}
