//! etcd.

use std::time::Duration;

use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_benches::contest::Contest;
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_tests::servers::EtcdServer;
use etcd_client::{Client, Compare, CompareOp, LockOptions, PutOptions, Txn, TxnOp};

use crate::dlock;
use crate::servers::cpu_of;

pub const LOCK: &str = "etcd's Lock RPC";
const LIMIT: &str = "two transactions";

/// Of the one lease that all locks of a peer have.
const TTL_S: i64 = 30;

pub fn rows() -> Vec<Row> {
    vec![
        Row::new(Family::Alone, "etcd-64", "etcd, 64 tasks", alone)
            .needs("etcd")
            .at_least(1.0, LOCK),
    ]
}

async fn alone(plan: Plan) -> Outcome {
    let server = EtcdServer::start();
    let contest = contest(server.port(), 64).await.probe(cpu_of([&server]));
    contest.measure(plan).await.note("each write waits for the disk")
}

/// All contenders on the server behind this port.
pub async fn contest(port: u16, tasks: u32) -> Contest {
    Contest::default()
        .with(dlock::alone(&format!("etcd://127.0.0.1:{port}"), tasks).await)
        .with(limit(port, tasks).await)
        .with(lock(port, tasks).await)
}

/// A client with a lease that is kept alive.
async fn connect(port: u16) -> (Client, i64) {
    let mut client = Client::connect([format!("127.0.0.1:{port}")], None).await.expect("it runs");
    let lease = client.lease_grant(TTL_S, None).await.expect("a lease").id();
    let mut keeper = client.clone();
    tokio::spawn(async move {
        let (mut requests, mut answers) = keeper.lease_keep_alive(lease).await.expect("it runs");
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            // When the server ends, so does the row.
            if requests.keep_alive().await.is_err() || answers.message().await.is_err() {
                return;
            }
        }
    });
    (client, lease)
}

async fn limit(port: u16, tasks: u32) -> Contender {
    let (client, lease) = connect(port).await;
    let run = in_tasks(tasks, move |task, mut turns| {
        let mut client = client.clone();
        async move {
            let key = format!("bare/{task}");
            while turns.again() {
                cycle(&mut client, lease, &key).await.expect("the server runs");
            }
            turns
        }
    });
    let remark = "under one lease for all locks; nobody else can wait";
    Contender::new(Role::Limit, LIMIT, run).remark(remark)
}

async fn cycle(client: &mut Client, lease: i64, key: &str) -> Result<(), etcd_client::Error> {
    let is_free = Compare::create_revision(key, CompareOp::Equal, 0);
    let put = TxnOp::put(key, "", Some(PutOptions::new().with_lease(lease)));
    let acquired = client.txn(Txn::new().when([is_free]).and_then([put])).await?;
    assert!(acquired.succeeded(), "nobody else wants it");
    let revision = acquired.header().map_or(0, etcd_client::ResponseHeader::revision);
    let is_ours = Compare::create_revision(key, CompareOp::Equal, revision);
    let delete = TxnOp::delete(key, None);
    let released = client.txn(Txn::new().when([is_ours]).and_then([delete])).await?;
    assert!(released.succeeded(), "it was held");
    Ok(())
}

async fn lock(port: u16, tasks: u32) -> Contender {
    let (client, lease) = connect(port).await;
    let run = in_tasks(tasks, move |task, mut turns| {
        let mut client = client.clone();
        async move {
            let name = format!("lock/{task}");
            while turns.again() {
                let options = LockOptions::new().with_lease(lease);
                let held = client.lock(name.as_str(), Some(options)).await.expect("it runs");
                client.unlock(held.key()).await.expect("it runs");
            }
            turns
        }
    });
    let remark = "under one lease for all locks of the process; dlock's each have their own";
    Contender::new(Role::Peer, LOCK, run).remark(remark)
}
