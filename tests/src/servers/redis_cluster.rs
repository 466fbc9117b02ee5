//! A Redis Cluster: three masters with one replica each.

use std::time::{Duration, Instant};

use super::redis::cli;
use super::{RedisServer, free_port};

/// How long a Cluster may take to converge.
const LIMIT: Duration = Duration::from_mins(1);

/// A Redis Cluster of six servers.
#[derive(Debug)]
pub struct RedisCluster {
    /// The servers, masters and replicas.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts a cluster.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        let nodes: Vec<_> = (0..6).map(|_| node()).collect();
        let addresses: Vec<_> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let _ = cli(nodes[0].port(), &words);
        let cluster = Self { nodes };
        cluster.wait_until_ok(&cluster.all());
        // A failover needs replicas that are in sync.
        let masters =
            || cluster.nodes.iter().filter(|node| node.cli(&["ROLE"]).starts_with("master"));
        wait_for("three masters", || masters().count() == 3);
        masters().for_each(|master| master.wait_for_replicas(1));
        cluster
    }

    /// The cluster's URL, with three of its nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .rev()
            .take(3)
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Which node is the master for this key.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn master_of(&self, key: &str) -> usize {
        let with = |node: &RedisServer| {
            let answer = node.cli(&["--raw", "GET", key]);
            !answer.contains("MOVED") && node.cli(&["--raw", "ROLE"]).starts_with("master")
        };
        self.nodes.iter().position(with).expect("a master of every slot")
    }

    /// Kills a master, and waits until its replica has taken over.
    ///
    /// # Panics
    /// If no replica does.
    pub fn fail_over(&mut self, master: usize) {
        self.nodes[master].kill();
        let left: Vec<_> = (0..self.nodes.len()).filter(|node| *node != master).collect();
        // Until they notice the failure, the other nodes report that all is well.
        let port = self.nodes[master].port().to_string();
        let noticed = |node: &usize| {
            let nodes = self.nodes[*node].cli(&["CLUSTER", "NODES"]);
            nodes.lines().any(|line| line.contains(&format!(":{port}@")) && line.contains("fail"))
        };
        wait_for("the failure is noticed", || left.iter().all(noticed));
        self.wait_until_ok(&left);
    }

    fn all(&self) -> Vec<usize> {
        (0..self.nodes.len()).collect()
    }

    fn wait_until_ok(&self, nodes: &[usize]) {
        let is_ok =
            |node: &usize| self.nodes[*node].cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        wait_for("cluster_state:ok", || nodes.iter().all(is_ok));
    }
}

fn node() -> RedisServer {
    let bus = free_port().expect("a free port").to_string();
    RedisServer::start_with(&[
        "--save",
        "",
        "--appendonly",
        "no",
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        "nodes.conf",
        "--cluster-node-timeout",
        "2000",
        "--cluster-port",
        &bus,
        "--repl-diskless-sync-delay",
        "0",
    ])
}

pub(super) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
