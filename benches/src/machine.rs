//! The machine, and the versions of everything that was measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dlock_tests::servers::{ZOOKEEPER, installed, program};
use serde::Serialize;

/// The peers' crates, and the clients that peers and limits share with dlock.
const CRATES: [&str; 8] = [
    "dlock-runtime",
    "distributed-lock-redis",
    "etcd-client",
    "redis",
    "rslock",
    "sqlx",
    "tokio",
    "zookeeper-client",
];

/// The machine and the versions.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// How many cores this process may use.
    pub cores: usize,
    /// The processor.
    pub processor: String,
    /// The kernel.
    pub kernel: String,
    /// The servers, and Java.
    pub servers: BTreeMap<&'static str, String>,
    /// The crates.
    pub crates: BTreeMap<&'static str, String>,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            processor: processor(),
            kernel: line_of("uname", &["-sr"], |line| Some(line.to_owned())).unwrap_or_default(),
            servers: servers(),
            crates: crates(include_str!("../../Cargo.lock")),
        }
    }

    /// As one line.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} cores, {}, {}", self.cores, self.processor, self.kernel)
    }

    /// All versions as one line.
    #[must_use]
    pub fn versions(&self) -> String {
        let all = self.servers.iter().chain(&self.crates);
        all.map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

fn servers() -> BTreeMap<&'static str, String> {
    let word_after = |word: &'static str| {
        move |line: &str| {
            let version = line.split_once(word)?.1.split([' ', ',', '-', '"']).next()?;
            (!version.is_empty()).then(|| version.to_owned())
        }
    };
    let asked = [
        ("Redis", line_of("redis-server", &["--version"], word_after("v="))),
        ("PostgreSQL", line_of("postgres", &["--version"], word_after("(PostgreSQL) "))),
        ("MariaDB", line_of("mariadbd", &["--version"], word_after("Ver "))),
        ("etcd", line_of("etcd", &["--version"], word_after("etcd Version: "))),
        ("Java", line_of("java", &["--version"], word_after("openjdk "))),
        ("ZooKeeper", installed(ZOOKEEPER).then(zookeeper).flatten()),
    ];
    asked.into_iter().filter_map(|(name, version)| Some((name, version?))).collect()
}

/// The version is in the name of the file that the jar is a link to.
fn zookeeper() -> Option<String> {
    let file = std::fs::canonicalize(Path::new("/usr/share/java").join(ZOOKEEPER)).ok()?;
    let name = file.file_stem()?.to_str()?;
    Some(name.rsplit_once('-')?.1.to_owned())
}

/// What this finds in the first line of a program's output that has it.
fn line_of(
    name: &str,
    arguments: &[&str],
    find: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let output = Command::new(program(name)?).args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().find_map(find)
}

fn crates(lock_file: &'static str) -> BTreeMap<&'static str, String> {
    let mut lines = lock_file.lines();
    let mut found = BTreeMap::new();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("name = \"").and_then(|name| name.strip_suffix('"'));
        let Some(name) = name.filter(|name| CRATES.contains(name)) else { continue };
        let version = lines.next().and_then(|line| line.strip_prefix("version = \""));
        found.insert(name, version.unwrap_or_default().trim_end_matches('"').to_owned());
    }
    found
}
