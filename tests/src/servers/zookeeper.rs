//! ZooKeeper: one server, or an ensemble.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::server::{Kind, Server};
use super::{free_port, program, redis_cluster::wait_for};
use crate::proxy::Proxy;

/// The file that shows whether ZooKeeper is installed. It has no executable of its own.
pub const ZOOKEEPER: &str = "zookeeper.jar";

/// The file that shows whether Curator's Java client, and a compiler for it, are installed.
pub const CURATOR: &str = "curator-recipes.jar";

/// The shortest session timeout that is reliable in the tests, in milliseconds.
const SHORT: u64 = 2_000;

/// Curator's classes and their dependencies, as Debian installs them.
const CURATOR_JARS: [&str; 5] = [
    "/usr/share/java/curator-recipes.jar",
    "/usr/share/java/curator-framework.jar",
    "/usr/share/java/curator-client.jar",
    "/usr/share/java/guava.jar",
    "/usr/share/java/zookeeper.jar",
];

/// Whether Curator and a JDK are installed.
pub(super) fn has_curator() -> bool {
    CURATOR_JARS.iter().all(|jar| Path::new(jar).is_file()) && program("javac").is_some()
}

/// The Java class path for Curator.
#[must_use]
pub fn curator_class_path() -> String {
    CURATOR_JARS.join(":")
}

/// ZooKeeper's classes, as Debian installs them.
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// A ZooKeeper server.
pub type ZooKeeperServer = Server<ZooKeeper>;

/// The parameters of a [`ZooKeeperServer`].
#[derive(Debug)]
pub struct ZooKeeper {
    /// Its number, from 1, and the ensemble's settings; `None` for a standalone server.
    ensemble: Option<(usize, String)>,
    /// How often it removes empty container nodes, in milliseconds.
    removes_folders: u64,
}

impl ZooKeeper {
    /// A server that removes the empty folders of keys quickly.
    const fn new(ensemble: Option<(usize, String)>) -> Self {
        Self { ensemble, removes_folders: 500 }
    }
}

/// The jar, if it is installed together with Java.
pub(super) fn jar() -> Option<PathBuf> {
    let jar = PathBuf::from(JAR);
    (jar.is_file() && program("java").is_some()).then_some(jar)
}

impl ZooKeeperServer {
    /// Starts a server.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(ZooKeeper::new(None), temporary())
    }

    /// Starts a server that does not remove empty folders.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_leaving_folders() -> Self {
        let kind = ZooKeeper { removes_folders: 3_600_000, ..ZooKeeper::new(None) };
        Self::launch(kind, temporary())
    }

    /// The URL, with the shortest reliable session timeout.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with(SHORT)
    }

    /// The URL, with this session timeout in milliseconds.
    #[must_use]
    pub fn url_with(&self, session_timeout: u64) -> String {
        url(&[self.port()], session_timeout)
    }

    /// The answer to one of the four-letter commands.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn ask(&self, word: &str) -> String {
        ask(self.port(), word).expect("it answers")
    }

    /// One of the server's own statistics (`mntr`).
    ///
    /// # Panics
    /// If it has none of that name.
    #[must_use]
    pub fn statistic(&self, name: &str) -> u64 {
        let reply = self.ask("mntr");
        let mut lines = reply.lines().filter_map(|line| line.split_once('\t'));
        let value = lines.find(|(known, _)| *known == name).map(|(_, value)| value.trim());
        // Some are printed as 7.0.
        let whole = value.and_then(|value| value.split('.').next()?.parse().ok());
        whole.unwrap_or_else(|| panic!("no number {name} in {reply}"))
    }

    /// The paths of all ephemeral nodes.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn ephemerals(&self) -> Vec<String> {
        let reply = self.ask("dump");
        let paths = reply.lines().map(str::trim).filter(|line| line.starts_with('/'));
        paths.map(str::to_owned).collect()
    }
}

/// Three ZooKeeper servers.
#[derive(Debug)]
pub struct ZooKeeperEnsemble {
    /// The servers.
    pub servers: Vec<ZooKeeperServer>,
}

impl ZooKeeperEnsemble {
    /// Starts the servers.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        let ports = peer_ports();
        Self::start_each((1..=3).map(|_| servers_at(&ports, SYNC_LIMIT)).collect())
    }

    /// Starts an ensemble whose first server reaches the other two through proxies. Stalling these
    /// cuts it off from its leader, which it does not notice for a while.
    ///
    /// # Panics
    /// If a server does not start.
    pub async fn start_with_links() -> (Self, Vec<Proxy>) {
        let ports = peer_ports();
        let links = vec![Proxy::start(ports[1].0).await, Proxy::start(ports[2].0).await];
        let behind = [ports[0], (links[0].port(), ports[1].1), (links[1].port(), ports[2].1)];
        let patient = 40;
        let settings = [&behind, &ports, &ports].map(|ports| servers_at(ports, patient));
        let starting = tokio::task::spawn_blocking(move || Self::start_each(settings.to_vec()));
        (starting.await.expect("they start"), links)
    }

    /// Starts servers with these settings.
    fn start_each(settings: Vec<String>) -> Self {
        let starting: Vec<_> = settings
            .into_iter()
            .enumerate()
            .map(|(at, settings)| {
                let ensemble = Some((at + 1, settings));
                // No server answers before two are up.
                std::thread::spawn(move || Server::launch(ZooKeeper::new(ensemble), temporary()))
            })
            .collect();
        let servers = starting.into_iter().map(|one| one.join().expect("it starts")).collect();
        let ensemble = Self { servers };
        wait_for("a leader", || ensemble.find_leader().is_some());
        ensemble
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with(SHORT)
    }

    /// The URL, with this session timeout in milliseconds.
    #[must_use]
    pub fn url_with(&self, session_timeout: u64) -> String {
        let ports: Vec<_> = self.servers.iter().map(Server::port).collect();
        url(&ports, session_timeout)
    }

    /// Whether this server is the leader.
    #[must_use]
    pub fn leads(&self, server: usize) -> bool {
        let reply = ask(self.servers[server].port(), "srvr");
        reply.is_ok_and(|reply| reply.contains("Mode: leader"))
    }

    /// Which server is the leader.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.find_leader().expect("a leader")
    }

    fn find_leader(&self) -> Option<usize> {
        (0..self.servers.len()).find(|server| self.leads(*server))
    }
}

/// The ports that the three servers use among themselves: for followers, for elections.
fn peer_ports() -> [(u16, u16); 3] {
    let port = || free_port().expect("a free port");
    [(); 3].map(|()| (port(), port()))
}

/// How long a follower can be out of contact with its leader, in ticks.
const SYNC_LIMIT: u32 = 4;

/// The settings that list all servers.
fn servers_at(ports: &[(u16, u16); 3], sync_limit: u32) -> String {
    let mut settings = format!("initLimit=20\nsyncLimit={sync_limit}\n");
    for (at, (peers, elections)) in ports.iter().enumerate() {
        settings.push_str("server.");
        settings.push_str(&(at + 1).to_string());
        settings.push_str(&["=127.0.0.1", &peers.to_string(), &elections.to_string()].join(":"));
        settings.push('\n');
    }
    settings
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn url(ports: &[u16], session_timeout: u64) -> String {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("zookeeper://{}?session_timeout_ms={session_timeout}", hosts.join(","))
}

fn ask(port: u16, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(word.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

impl Kind for ZooKeeper {
    fn command(&self, folder: &Path, port: u16) -> Command {
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("a writable directory");
        let mut settings = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n",
            data.display()
        );
        if let Some((id, lines)) = &self.ensemble {
            std::fs::write(data.join("myid"), id.to_string()).expect("a writable file");
            settings.push_str(lines);
        }
        let file = folder.join("zoo.cfg");
        std::fs::write(&file, settings).expect("a writable file");
        let mut command = Command::new(program("java").expect("Java is installed"));
        command.args([
            "-Xmx192m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.4lw.commands.whitelist=*",
            "-Dzookeeper.forceSync=no",
        ]);
        command.arg(format!("-Dznode.container.checkIntervalMs={}", self.removes_folders));
        command.arg("-cp");
        command.arg(jar().expect("it is installed"));
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(file);
        command
    }

    fn answers(port: u16) -> io::Result<bool> {
        Ok(ask(port, "srvr")?.contains("Mode: "))
    }
}
