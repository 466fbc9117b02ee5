//! How a server is reached: by its address, or through Sentinels that know it. Also the commands that are not scripts:
//! `SCAN` and `CONFIG GET`.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, Value,
};

use super::link::Limits;

/// How many keys one step of a scan covers.
const SCANNED_AT_ONCE: usize = 1_000;

/// How to reach a server.
#[derive(Clone)]
pub(in crate::stores) enum Topology {
    Server(Arc<Client>),
    Sentinels(Arc<Sentinels>),
}

/// Sentinels, and the master that they watch.
pub(in crate::stores) struct Sentinels {
    pub(in crate::stores) clients: Vec<Client>,
    pub(in crate::stores) master: String,
    pub(in crate::stores) template: Template,
}

/// The connection settings of a server whose address others report: everything but the address.
pub(in crate::stores) struct Template {
    pub(in crate::stores) settings: ConnectionInfo,
    #[cfg(feature = "redis-tls")]
    pub(in crate::stores) certificates: Option<redis::TlsCertificates>,
}

impl Topology {
    /// Opens a connection for requests.
    pub(in crate::stores) async fn connect(
        &self,
        limits: Limits,
    ) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => {
                client.get_multiplexed_async_connection_with_config(&config(limits)).await
            }
            Self::Sentinels(sentinels) => {
                let master = sentinels.master(limits).await?;
                let mut connection =
                    master.get_multiplexed_async_connection_with_config(&config(limits)).await?;
                refuse_replica(&mut connection).await?;
                Ok(connection)
            }
        }
    }

    /// Opens a connection that receives messages.
    pub(in crate::stores) async fn listen(&self, limits: Limits) -> RedisResult<PubSub> {
        let listening = async {
            match self {
                Self::Server(client) => client.get_async_pubsub().await,
                Self::Sentinels(sentinels) => {
                    sentinels.master(limits).await?.get_async_pubsub().await
                }
            }
        };
        tokio::time::timeout(limits.connect, listening).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Sentinels {
    /// Returns the master that most of the answering Sentinels name.
    async fn master(&self, limits: Limits) -> RedisResult<Client> {
        let mut asking: FuturesUnordered<_> =
            self.clients.iter().map(|sentinel| self.ask(sentinel, limits)).collect();
        let mut votes: Vec<((String, u16), usize)> = vec![];
        let mut failure = None;
        while let Some(answer) = asking.next().await {
            match answer {
                Ok(address) => {
                    let at = votes.iter().position(|(known, _)| *known == address);
                    let at = at.unwrap_or_else(|| {
                        votes.push((address, 0));
                        votes.len() - 1
                    });
                    votes[at].1 += 1;
                    if votes[at].1 > self.clients.len() / 2 {
                        break;
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        match votes.into_iter().max_by_key(|(_, votes)| *votes) {
            Some(((host, port), _)) => self.template.client(host, port),
            None => Err(failure.unwrap_or_else(late)),
        }
    }

    async fn ask(&self, sentinel: &Client, limits: Limits) -> RedisResult<(String, u16)> {
        let mut connection =
            sentinel.get_multiplexed_async_connection_with_config(&config(limits)).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(&self.master);
        let address: Option<(String, u16)> = ask.query_async(&mut connection).await?;
        address.ok_or_else(|| {
            let problem = format!("the sentinel watches no master `{}`", self.master);
            RedisError::from((ErrorKind::InvalidClientConfig, "unknown master", problem))
        })
    }
}

impl Template {
    /// Creates the client for an address.
    pub(super) fn client(&self, host: String, port: u16) -> RedisResult<Client> {
        let address = match self.settings.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let settings = self.settings.clone().set_addr(address);
        #[cfg(feature = "redis-tls")]
        if let Some(certificates) = &self.certificates {
            return Client::build_with_tls(settings, certificates.clone());
        }
        Client::open(settings)
    }
}

fn config(limits: Limits) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits.connect))
        .set_response_timeout(Some(limits.response))
}

/// Refuses a server that is not a master. Sentinels may name one that was demoted a moment ago.
async fn refuse_replica(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Vec<Value> = redis::cmd("ROLE").query_async(connection).await?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err(RedisError::from((ErrorKind::Io, "the server is no longer the master"))),
    }
}

pub(in crate::stores) fn late() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time").into()
}

pub(in crate::stores) fn closed() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection was closed").into()
}

/// Calls `found` with each name that matches, possibly more than once.
pub(super) async fn scan(
    mut connection: MultiplexedConnection,
    pattern: &str,
    mut found: impl FnMut(&str),
) -> RedisResult<()> {
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED_AT_ONCE);
        let (next, names): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
        for name in &names {
            found(name);
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

/// Returns the value of a setting, if the server knows it.
pub(super) async fn setting(
    mut connection: MultiplexedConnection,
    name: &str,
) -> RedisResult<Option<String>> {
    let ask = redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
    let settings: Vec<(String, String)> = ask.query_async(&mut connection).await?;
    Ok(settings.into_iter().find(|(setting, _)| setting == name).map(|(_, value)| value))
}
