//! Real servers of the tests' own: each on a port of its own, with a directory of its own, ended by
//! its process id. None needs a configuration of the machine, and a server that the machine runs for
//! itself is left alone.

mod data;
mod etcd;
mod mariadb;
mod postgres;
mod redis;
mod redis_cluster;
mod redis_nodes;
mod redis_sentinel;
mod server;
mod tree;
mod zookeeper;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};

pub use self::data::run_as;
pub use self::etcd::{Etcd, EtcdCluster, EtcdServer};
pub use self::mariadb::{MariaDb, MariaDbServer};
pub use self::postgres::{Postgres, PostgresServer};
pub use self::redis::{Redis, RedisServer, VALKEY};
pub use self::redis_cluster::RedisCluster;
pub use self::redis_nodes::RedisNodes;
pub use self::redis_sentinel::RedisSentinels;
pub use self::server::{Kind, Server};
pub use self::zookeeper::{
    CURATOR, ZOOKEEPER, ZooKeeper, ZooKeeperEnsemble, ZooKeeperServer, curator_class_path,
};

/// The path of a program: PostgreSQL's newest as Debian installs it, else one on the `PATH`, else one
/// where servers are kept off the `PATH` of most users.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = postgres_folders();
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Is this program on the machine?
#[must_use]
pub fn installed(name: &str) -> bool {
    match name {
        ZOOKEEPER => zookeeper::jar().is_some(),
        CURATOR => zookeeper::has_curator(),
        _ => program(name).is_some(),
    }
}

/// The first of these programs that is not on the machine, or the first of all.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn first_missing(names: &[&'static str]) -> &'static str {
    names.iter().find(|name| !installed(name)).or(names.first()).expect("a program")
}

/// The folders of PostgreSQL's programs that Debian leaves off the `PATH`, the newest version first.
fn postgres_folders() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.split('.').next()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

/// A port that nobody uses at this moment, and that this process was not given before.
///
/// It is below the ports that Linux gives to outgoing connections: while a killed server is away, none
/// of its clients is given its port.
///
/// # Errors
/// When none can be had.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static LOOKS: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time begin far from each other.
    let begin = std::process::id().wrapping_mul(7919) % COUNT;
    for _ in 0..COUNT {
        let look = u32::from(LOOKS.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + (begin + look) % COUNT).map_err(io::Error::other)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Sends a signal to a child process.
///
/// # Panics
/// When the child is gone.
pub fn signal_child(child: &Child, signal: Signal) {
    kill_process(id_of(child), signal).expect("a child of ours");
}

fn id_of(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id")
}
