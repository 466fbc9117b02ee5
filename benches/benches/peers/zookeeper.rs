//! ZooKeeper.

use std::time::Duration;

use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_benches::contest::Contest;
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_tests::servers::{ZOOKEEPER, ZooKeeperServer};
use zookeeper_client::{Acls, Client, CreateMode, LockPrefix};

use crate::servers::cpu_of;
use crate::{curator, dlock};

/// The limit's name.
pub const LIMIT: &str = "create, getChildren, delete";
const RECIPE: &str = "zookeeper-client's recipe";

/// What dlock and Curator have by default or nearly so.
const SESSION: Duration = Duration::from_secs(6);

pub fn rows() -> Vec<Row> {
    let row = Row::new(Family::Alone, "zookeeper-64", "ZooKeeper, 64 tasks", alone);
    vec![row.needs(ZOOKEEPER).at_least(1.0, curator::NAME).at_least(0.8, LIMIT)]
}

async fn alone(plan: Plan) -> Outcome {
    let server = ZooKeeperServer::start();
    let contest = contest(server.port(), 64).await.probe(cpu_of([&server]));
    let note = "writes wait for the kernel, not for the disk (`forceSync = no`)";
    contest.measure(plan).await.note(note)
}

/// All contenders on the server behind this port.
pub async fn contest(port: u16, tasks: u32) -> Contest {
    let url = format!("zookeeper://127.0.0.1:{port}?session_timeout_ms={}", SESSION.as_millis());
    let contest = Contest::default()
        .with(dlock::alone(&url, tasks).await)
        .with(limit(port, tasks).await)
        .with(recipe(port, tasks).await);
    match curator::alone(port, tasks).await {
        Some(curator) => contest.with(curator),
        None => contest,
    }
}

/// A client, and a folder of its own for each task.
async fn connect(port: u16, root: &'static str, tasks: u32) -> Client {
    let connector = Client::connector().with_session_timeout(SESSION);
    let client = connector.connect(&format!("127.0.0.1:{port}")).await.expect("the server runs");
    let folder = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(root, b"", &folder).await.expect("a new node");
    for task in 0..tasks {
        client.create(&format!("{root}/{task}"), b"", &folder).await.expect("a new node");
    }
    client
}

async fn limit(port: u16, tasks: u32) -> Contender {
    let client = connect(port, "/bare", tasks).await;
    let run = in_tasks(tasks, move |task, mut turns| {
        let client = client.clone();
        async move {
            let folder = format!("/bare/{task}");
            while turns.again() {
                cycle(&client, &folder).await.expect("the server runs");
            }
            turns
        }
    });
    Contender::new(Role::Limit, LIMIT, run)
}

async fn cycle(client: &Client, folder: &str) -> Result<(), zookeeper_client::Error> {
    let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
    let prefix = format!("{folder}/lock-");
    let (_, sequence) = client.create(&prefix, b"", &options).await?;
    let children = client.list_children(folder).await?;
    assert_eq!(children.len(), 1, "nobody else wants it");
    client.delete(&format!("{prefix}{sequence}"), None).await
}

async fn recipe(port: u16, tasks: u32) -> Contender {
    let client = connect(port, "/recipe", tasks).await;
    let run = in_tasks(tasks, move |task, mut turns| {
        let client = client.clone();
        async move {
            let folder = format!("/recipe/{task}");
            while turns.again() {
                let prefix = LockPrefix::new_curator(&folder, "lock-").expect("a path");
                let lock = client.lock(prefix, b"", Acls::anyone_all()).await;
                drop(lock.expect("the server runs"));
            }
            turns
        }
    });
    Contender::new(Role::Peer, RECIPE, run).remark("it does not wait until the lock is released")
}
