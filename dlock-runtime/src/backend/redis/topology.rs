//! How the server that has a key is reached: there is one, Sentinels know it, or a Cluster's slots do.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo, SingleNodeRoutingInfo, Slot,
    SlotAddr,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline,
    RedisError, RedisFuture, RedisResult, Value,
};

use super::link::Limits;

/// How much of a server's keys one step of a scan looks at.
const SCANNED_AT_ONCE: usize = 1_000;

/// How to reach the server that has a key.
pub(in crate::backend) enum Topology {
    Server(Client),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

/// A Cluster, and the nodes by which it is found.
pub(in crate::backend) struct Cluster {
    pub(in crate::backend) client: ClusterClient,
    pub(in crate::backend) nodes: Vec<Client>,
    /// Which of them was listened to last.
    pub(in crate::backend) turn: AtomicUsize,
}

/// Sentinels, and what they watch.
pub(in crate::backend) struct Sentinels {
    pub(in crate::backend) clients: Vec<Client>,
    pub(in crate::backend) master: String,
    /// How to talk to the master: everything but its address.
    pub(in crate::backend) settings: ConnectionInfo,
    #[cfg(feature = "redis-tls")]
    pub(in crate::backend) certificates: Option<redis::TlsCertificates>,
}

/// A connection that carries requests.
#[derive(Clone)]
pub(in crate::backend) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Topology {
    /// A new connection that carries requests.
    pub(in crate::backend) async fn connect(&self, limits: Limits) -> RedisResult<Connection> {
        match self {
            Self::Server(client) => {
                let config = config(limits);
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Connection::Server(connection.await?))
            }
            Self::Sentinels(sentinels) => {
                let master = sentinels.master(limits).await?;
                let mut connection =
                    master.get_multiplexed_async_connection_with_config(&config(limits)).await?;
                refuse_replica(&mut connection).await?;
                Ok(Connection::Server(connection))
            }
            Self::Cluster(cluster) => {
                let connecting = cluster.client.get_async_connection();
                let connection = tokio::time::timeout(limits.connect, connecting).await;
                Ok(Connection::Cluster(connection.unwrap_or_else(|_| Err(late()))?))
            }
        }
    }

    /// A new connection that hears messages. In a Cluster any node passes on those of all.
    pub(in crate::backend) async fn listen(&self, limits: Limits) -> RedisResult<PubSub> {
        let listening = async {
            match self {
                Self::Server(client) => client.get_async_pubsub().await,
                Self::Sentinels(sentinels) => {
                    sentinels.master(limits).await?.get_async_pubsub().await
                }
                Self::Cluster(cluster) => {
                    let turn = cluster.turn.fetch_add(1, Ordering::Relaxed);
                    cluster.nodes[turn % cluster.nodes.len()].get_async_pubsub().await
                }
            }
        };
        tokio::time::timeout(limits.connect, listening).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Sentinels {
    /// The master that most of those who answer name.
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
            Some(((host, port), _)) => self.client(host, port),
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

    fn client(&self, host: String, port: u16) -> RedisResult<Client> {
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

/// Sentinels may name a master that was demoted a moment ago.
async fn refuse_replica(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Vec<Value> = redis::cmd("ROLE").query_async(connection).await?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err(RedisError::from((ErrorKind::Io, "the server is no longer the master"))),
    }
}

pub(in crate::backend) fn late() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time").into()
}

pub(in crate::backend) fn closed() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection was closed").into()
}

impl Connection {
    /// Waits until so many replicas have what this connection has written to the key's server, and
    /// says how many have.
    pub(in crate::backend) async fn wait(
        &mut self,
        key: &str,
        replicas: u32,
        millis: u64,
    ) -> RedisResult<u32> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(millis);
        match self {
            Self::Server(connection) => wait.query_async(connection).await,
            Self::Cluster(connection) => {
                let route = Route::with_slot(Slot::for_key(key), SlotAddr::Master);
                let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
                redis::from_redis_value(connection.route_command(wait, route).await?)
                    .map_err(RedisError::from)
            }
        }
    }

    /// Tells the names that match, of every server that has keys. One may be told more than once.
    pub(in crate::backend) async fn scan(
        &mut self,
        pattern: &str,
        mut found: impl FnMut(&str),
    ) -> RedisResult<()> {
        let masters = match self {
            Self::Server(_) => vec![None],
            Self::Cluster(connection) => masters(connection).await?,
        };
        for master in masters {
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED_AT_ONCE);
                let answer = match (&mut *self, &master) {
                    (Self::Cluster(connection), Some(master)) => {
                        connection.route_command(scan, master.clone()).await?
                    }
                    (connection, _) => scan.query_async(connection).await?,
                };
                let (next, names): (u64, Vec<String>) = redis::from_redis_value(answer)?;
                for name in &names {
                    found(name);
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What a setting is, on every server that may have a key.
    pub(in crate::backend) async fn setting(&mut self, name: &str) -> RedisResult<Vec<String>> {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg(name);
        let answer = match self {
            Self::Server(connection) => ask.query_async(connection).await?,
            Self::Cluster(connection) => {
                let all = MultipleNodeRoutingInfo::AllMasters;
                let all = RoutingInfo::MultiNode((all, Some(ResponsePolicy::CombineArrays)));
                connection.route_command(ask, all).await?
            }
        };
        let mut words = vec![];
        flatten(answer, &mut words);
        // Names and values in turn.
        let values = words.chunks(2).filter(|pair| pair[0] == name);
        Ok(values.filter_map(|pair| pair.get(1).cloned()).collect())
    }
}

/// A way to each node that has keys: by a slot of its own.
async fn masters(connection: &mut ClusterConnection) -> RedisResult<Vec<Option<RoutingInfo>>> {
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let mut ask = redis::cmd("CLUSTER");
    ask.arg("SLOTS");
    let Value::Array(ranges) = connection.route_command(ask, any).await? else { return Ok(vec![]) };
    let mut seen: Vec<String> = vec![];
    let mut routes = vec![];
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), _, Value::Array(master), ..] = &range[..] else { continue };
        // Address, port, id.
        let master: Vec<Value> = master.iter().take(3).cloned().collect();
        let master = format!("{master:?}");
        let slot = u16::try_from(*first).ok().and_then(Slot::new);
        if let Some(slot) = slot.filter(|_| !seen.contains(&master)) {
            let route = Route::with_slot(slot, SlotAddr::Master);
            let route = SingleNodeRoutingInfo::SpecificNode(route);
            routes.push(Some(RoutingInfo::SingleNode(route)));
            seen.push(master);
        }
    }
    Ok(routes)
}

/// All words of an answer, in order.
fn flatten(value: Value, words: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.into_iter().for_each(|value| flatten(value, words)),
        Value::Map(pairs) => pairs.into_iter().for_each(|(name, value)| {
            flatten(name, words);
            flatten(value, words);
        }),
        Value::BulkString(bytes) => words.push(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) => words.push(text),
        _ => {}
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
