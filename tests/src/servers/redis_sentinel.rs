//! A Redis master with two replicas, monitored by three Sentinels.

use super::RedisServer;
use super::redis_cluster::wait_for;

/// The master's name in the Sentinels' configuration.
const MASTER: &str = "shop";

/// Redis servers monitored by Sentinels.
#[derive(Debug)]
pub struct RedisSentinels {
    /// Master and replicas; the first one was the initial master.
    pub servers: Vec<RedisServer>,
    /// The Sentinels.
    pub sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts the servers.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        let plain = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let master = RedisServer::start_with(&plain);
        let port = master.port().to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            let replica = [&plain[..], &["--replicaof", "127.0.0.1", &port]].concat();
            servers.push(RedisServer::start_with(&replica));
        }
        let settings = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n"
        );
        let sentinels = (0..3).map(|_| RedisServer::start_sentinel(&settings)).collect();
        let all = Self { servers, sentinels };
        wait_for("Sentinels that know each other and both replicas", || {
            all.sentinels.iter().all(|sentinel| {
                let reply = sentinel.cli(&["SENTINEL", "MASTER", MASTER]);
                let is = |name: &str, value: &str| {
                    let mut lines = reply.lines();
                    lines.any(|line| line == name) && lines.next() == Some(value)
                };
                is("num-other-sentinels", "2") && is("num-slaves", "2")
            })
        });
        all.servers[0].wait_for_replicas(2);
        all
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<_> =
            self.sentinels.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+sentinel://{}/{MASTER}", nodes.join(","))
    }

    /// Which server is the master according to the Sentinels.
    ///
    /// # Panics
    /// If it is none of these.
    #[must_use]
    pub fn master(&self) -> usize {
        let reply = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let port = reply.lines().nth(1).unwrap_or_default();
        let is = |server: &RedisServer| server.port().to_string() == port;
        self.servers.iter().position(is).expect("one of these servers")
    }

    /// Has the Sentinels demote the master to a replica, and waits until all servers know.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn demote_master(&self) {
        let old = self.master();
        let _ = self.sentinels[0].cli(&["SENTINEL", "FAILOVER", MASTER]);
        wait_for("another master", || self.master() != old);
        wait_for("the old master is a replica", || {
            self.servers[old].cli(&["ROLE"]).starts_with("slave")
        });
    }

    /// Kills the master, and waits until the Sentinels have promoted another one.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn fail_over(&mut self) {
        let old = self.master();
        self.servers[old].kill();
        wait_for("another master", || self.master() != old);
    }
}
