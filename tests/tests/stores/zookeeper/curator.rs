//! Interoperation with Curator's `InterProcessMutex` in a Java process.

use std::path::Path;
use std::process::Stdio;

use dlock_runtime::Wait;
use dlock_tests::servers::{ZooKeeperServer, curator_class_path, program};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{LONG, acquire, registry, until};

/// The shared key, and its path as Curator sees it.
const KEY: &str = "product:100";
const PATH: &str = "/dlock/product:100";

struct Curator {
    _process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Curator {
    async fn start(server: &ZooKeeperServer) -> Self {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/zookeeper/Curator.java");
        let mut command = Command::new(program("java").expect("Java is installed"));
        command.args(["-Xmx192m", "-cp", &curator_class_path()]).arg(source);
        command.arg(format!("127.0.0.1:{}", server.port())).arg(PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.kill_on_drop(true).spawn().expect("Java starts");
        let input = process.stdin.take().expect("a pipe");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut curator = Self { _process: process, input, lines };
        curator.hears("ready").await;
        curator
    }

    async fn tell(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("Curator reads");
    }

    async fn hears(&mut self, word: &str) {
        while let Some(line) = self.lines.next_line().await.expect("a pipe") {
            if line == word {
                return;
            }
        }
        panic!("the Curator process ended");
    }

    async fn does(&mut self, line: &str) {
        self.tell(line).await;
        self.hears("done").await;
    }
}

fn number_in(file: &Path) -> u64 {
    std::fs::read_to_string(file).expect("the file").parse().expect("a number")
}

pub(super) async fn both_count_to_a_thousand_together() {
    let server = ZooKeeperServer::start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("counter");
    std::fs::write(&file, "0").expect("a file");
    let mut curator = Curator::start(&server).await;
    let registry = registry(&server.url_with(LONG)).await;
    curator.tell(&format!("count {} 500", file.display())).await;
    for _ in 0..500 {
        let lock = registry.lock(KEY).wait(Wait::Forever);
        let counted = lock.run(async {
            let number = number_in(&file);
            tokio::task::yield_now().await;
            std::fs::write(&file, (number + 1).to_string()).expect("a file");
        });
        counted.await.expect("the lock");
    }
    curator.hears("done").await;
    assert_eq!(number_in(&file), 1_000);
}

pub(super) async fn each_queues_behind_the_other() {
    let server = ZooKeeperServer::start();
    let url = server.url_with(LONG);
    let (one, other) = (registry(&url).await, registry(&url).await);
    let queue = |length: usize| {
        let server = &server;
        async move { until("the queue", || server.ephemerals().len() == length).await }
    };
    let mut curator = Curator::start(&server).await;
    // We hold the lock, Curator waits, and another client of ours waits behind it.
    let guard = acquire(&one, KEY).await;
    curator.tell("lock").await;
    queue(2).await;
    let behind = tokio::spawn(other.lock(KEY).wait(Wait::Forever).acquire());
    queue(3).await;
    guard.release().await.expect("held to the end");
    curator.hears("done").await;
    assert!(!behind.is_finished(), "it was overtaken, or there are two holders");
    // Curator holds the lock, and queues behind our client when it acquires again.
    curator.does("unlock").await;
    let guard = behind.await.expect("no panic").expect("the lock");
    curator.tell("lock").await;
    queue(2).await;
    guard.release().await.expect("held to the end");
    curator.hears("done").await;
    curator.does("unlock").await;
    queue(0).await;
}
