//! Real servers, started by the tests. Each has its own port and directory, and is killed by its
//! process id. They need no configuration on the machine, and never touch a server that the machine
//! itself runs.

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
pub use self::tree::cpu_time;
pub use self::zookeeper::{
    CURATOR, ZOOKEEPER, ZooKeeper, ZooKeeperEnsemble, ZooKeeperServer, curator_class_path,
};

/// Finds a program: the newest PostgreSQL as Debian installs it, otherwise one on the `PATH`,
/// otherwise one in the system folders that most users do not have on their `PATH`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = postgres_folders();
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether this program is installed.
#[must_use]
pub fn installed(name: &str) -> bool {
    match name {
        ZOOKEEPER => zookeeper::jar().is_some(),
        CURATOR => zookeeper::has_curator(),
        _ => program(name).is_some(),
    }
}

/// The first of these programs that is not installed, or the first one if all are.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn first_missing(names: &[&'static str]) -> &'static str {
    names.iter().find(|name| !installed(name)).or(names.first()).expect("a program")
}

/// The folders of PostgreSQL's programs that Debian does not put on the `PATH`, newest version
/// first.
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

/// Returns a free port that this process has not been given before.
///
/// It is below the range that Linux uses for outgoing connections. While a killed server is down,
/// none of its clients can be given its port.
///
/// # Errors
/// If no port is free.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static ATTEMPTS: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time start far from each other.
    let begin = std::process::id().wrapping_mul(7919) % COUNT;
    for _ in 0..COUNT {
        let attempt = u32::from(ATTEMPTS.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + (begin + attempt) % COUNT).map_err(io::Error::other)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Sends a signal to a child process.
///
/// # Panics
/// If the child is gone.
pub fn signal_child(child: &Child, signal: Signal) {
    kill_process(id_of(child), signal).expect("our own child process");
}

fn id_of(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id")
}
