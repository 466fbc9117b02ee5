//! Plain commands to a Redis server, over one connection, as dlock sends its own.

use redis::Client;
use redis::aio::MultiplexedConnection;

use super::{Requests, Unmeasured};

/// A key that was not deleted is gone after that.
const TTL_MS: u64 = 10_000;

#[derive(Clone)]
pub struct Commands {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Commands {
    pub async fn connect(url: &str, prefix: &str) -> Result<Self, Unmeasured> {
        // Without dlock's own options.
        let server = url.split('?').next().unwrap_or_default();
        let connection = Client::open(server)?.get_multiplexed_async_connection().await?;
        Ok(Self { connection, prefix: prefix.to_owned() })
    }

    fn key(&self, task: usize) -> String {
        format!("{}limit:{task}", self.prefix)
    }
}

impl Requests for Commands {
    const WHAT: &'static str = "`SET NX PX` and `DEL` over one connection; a read is `GET`";

    async fn read(&self, task: usize) -> Result<(), Unmeasured> {
        let mut connection = self.connection.clone();
        let _: Option<String> =
            redis::cmd("GET").arg(self.key(task)).query_async(&mut connection).await?;
        Ok(())
    }

    async fn write_twice(&self, task: usize) -> Result<(), Unmeasured> {
        let mut connection = self.connection.clone();
        let key = self.key(task);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg("held").arg("NX").arg("PX").arg(TTL_MS);
        let _: Option<String> = set.query_async(&mut connection).await?;
        let _: u64 = redis::cmd("DEL").arg(&key).query_async(&mut connection).await?;
        Ok(())
    }
}
