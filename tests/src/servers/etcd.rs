//! etcd: one server, or a cluster.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::server::{Kind, Server};
use super::{free_port, program, redis_cluster::wait_for};

/// An etcd server.
pub type EtcdServer = Server<Etcd>;

/// The parameters of an [`EtcdServer`].
#[derive(Debug)]
pub struct Etcd {
    name: String,
    /// The port for the other members.
    peer_port: u16,
    /// All members, by name.
    cluster: String,
    /// Certificate and key, if clients use TLS.
    tls: Option<[String; 2]>,
    /// The auth token options, if they are not the default.
    tokens: Vec<String>,
}

impl EtcdServer {
    /// Starts a server.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        let peer_port = free_port().expect("a free port");
        Self::launch_named("one", peer_port, format!("one=http://127.0.0.1:{peer_port}"))
    }

    fn launch_named(name: &str, peer_port: u16, cluster: String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (name, tokens) = (name.to_owned(), vec![]);
        Self::launch(Etcd { name, peer_port, cluster, tls: None, tokens }, folder)
    }

    /// Starts a server whose clients use TLS, with this certificate and key (PEM).
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let peer_port = free_port().expect("a free port");
        let cluster = format!("one=http://127.0.0.1:{peer_port}");
        let tls = Some([certificate.to_owned(), key.to_owned()]);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (name, tokens) = ("one".to_owned(), vec![]);
        Self::launch(Etcd { name, peer_port, cluster, tls, tokens }, folder)
    }

    /// Starts a server whose auth tokens expire this many seconds after their last use.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start_forgetting_logins_after(seconds: u64) -> Self {
        let peer_port = free_port().expect("a free port");
        let cluster = format!("one=http://127.0.0.1:{peer_port}");
        let tokens = vec![format!("--auth-token-ttl={seconds}")];
        let folder = tempfile::tempdir().expect("a temporary directory");
        let name = "one".to_owned();
        Self::launch(Etcd { name, peer_port, cluster, tls: None, tokens }, folder)
    }

    /// Enables authentication: keys are then only accessible to the user `locks`, with this
    /// password.
    ///
    /// # Panics
    /// If the command fails.
    pub fn enable_auth(&self, password: &str) {
        for words in [
            &["user", "add", "root:right/word"][..],
            &["user", "grant-role", "root", "root"],
            &["user", "add", &format!("locks:{password}")],
            &["role", "add", "locks"],
            &["role", "grant-permission", "locks", "--prefix=true", "readwrite", "dlock/"],
            &["user", "grant-role", "locks", "locks"],
            &["auth", "enable"],
        ] {
            let _ = self.ctl(words);
        }
    }

    /// Runs `etcdctl` with these arguments as root, once authentication is enabled.
    ///
    /// # Panics
    /// If the command fails.
    #[must_use]
    pub fn ctl_as_root(&self, words: &[&str]) -> String {
        self.ctl(&[&["--user", "root:right/word"][..], words].concat())
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port())
    }

    /// Runs `etcdctl` with these arguments and returns its output.
    ///
    /// # Panics
    /// If the command fails.
    #[must_use]
    pub fn ctl(&self, words: &[&str]) -> String {
        let mut command = Command::new(program("etcdctl").expect("etcd's client is installed"));
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &format!("127.0.0.1:{}", self.port())]).args(words);
        String::from_utf8_lossy(&super::data::complete(&mut command).stdout).into_owned()
    }

    /// Sums one of the server's own metrics over all lines that begin with this.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn statistic(&self, line: &str) -> u64 {
        let page = get(self.port(), "/metrics").expect("it answers");
        let values = page.lines().filter_map(|row| row.strip_prefix(line)?.rsplit(' ').next());
        values.filter_map(|value| value.split('.').next()?.parse::<u64>().ok()).sum()
    }
}

/// Three etcd servers.
#[derive(Debug)]
pub struct EtcdCluster {
    /// The members.
    pub servers: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// Starts the servers.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start() -> Self {
        let names = ["one", "two", "three"];
        let ports = names.map(|_| free_port().expect("a free port"));
        let members: Vec<_> = names
            .iter()
            .zip(ports)
            .map(|(name, port)| format!("{name}=http://127.0.0.1:{port}"))
            .collect();
        let cluster = members.join(",");
        let starting: Vec<_> = names
            .into_iter()
            .zip(ports)
            .map(|(name, port)| {
                let cluster = cluster.clone();
                // No member answers before two are up.
                std::thread::spawn(move || EtcdServer::launch_named(name, port, cluster))
            })
            .collect();
        let servers = starting.into_iter().map(|one| one.join().expect("it starts")).collect();
        let cluster = Self { servers };
        wait_for("a leader", || cluster.find_leader().is_some());
        cluster
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("etcd://{}", hosts.join(","))
    }

    /// Which member is the leader.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.find_leader().expect("a leader")
    }

    fn find_leader(&self) -> Option<usize> {
        let leads = |server: &EtcdServer| {
            get(server.port(), "/metrics")
                .is_ok_and(|page| page.lines().any(|line| line == "etcd_server_is_leader 1"))
        };
        self.servers.iter().position(leads)
    }
}

impl Kind for Etcd {
    fn command(&self, folder: &Path, port: u16) -> Command {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new(program("etcd").expect("etcd is installed"));
        command.args(["--name", &self.name, "--logger", "zap", "--log-level", "error"]);
        command.arg("--data-dir").arg(folder.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.cluster, "--unsafe-no-fsync"]);
        command.args(&self.tokens);
        if let Some([certificate, key]) = &self.tls {
            for (name, option, pem) in
                [("cert.pem", "--cert-file", certificate), ("key.pem", "--key-file", key)]
            {
                let file = folder.join(name);
                std::fs::write(&file, pem).expect("a writable file");
                command.arg(option).arg(file);
            }
            // The health check does not use TLS.
            let metrics = format!("http://127.0.0.1:{}", port_for_metrics(port));
            command.args(["--listen-metrics-urls", &metrics]);
        }
        command
    }

    fn answers(port: u16) -> io::Result<bool> {
        let health = get(port, "/health").or_else(|_| get(port_for_metrics(port), "/health"))?;
        Ok(health.contains("true"))
    }
}

/// A second port for this server. The offset is too large to collide with another server's port.
fn port_for_metrics(port: u16) -> u16 {
    port + 10_000
}

/// The body of a page.
fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut body = String::new();
    reader.read_to_string(&mut body)?;
    Ok(body)
}
