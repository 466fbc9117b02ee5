//! The public suite against every backend.

use std::process::ExitCode;

use dlock_runtime::backend::{Memory, Redis, Sqlite};
use dlock_runtime::testing::Suite;
use dlock_tests::servers::RedisServer;
use dlock_tests::trials::Trials;

fn main() -> ExitCode {
    let mut trials = Trials::default();
    trials.add("memory_conforms", memory);
    trials.add("sqlite_conforms", sqlite);
    trials.needs("redis-server", "redis_conforms", redis);
    trials.run()
}

async fn memory() {
    let store = Memory::new();
    let suite = Suite::new(move || std::future::ready(Ok(store.clone())));
    suite.run().await.assert_passed();
}

async fn sqlite() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { Sqlite::connect(&url).await }
    });
    suite.run().await.assert_passed();
}

async fn redis() {
    let server = RedisServer::start();
    let url = server.url();
    let suite = Suite::new(move || {
        let url = url.clone();
        async move { Redis::connect(&url).await }
    });
    suite.run().await.assert_passed();
}
