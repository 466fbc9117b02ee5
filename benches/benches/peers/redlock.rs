//! Redlock on five servers.

use std::future::Future;

use dlock_benches::contender::{Contender, Role, in_tasks};
use dlock_benches::contest::Contest;
use dlock_benches::outcome::Outcome;
use dlock_benches::row::{Family, Plan, Row};
use dlock_tests::servers::{RedisNodes, Server};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;

use crate::redis::{RSLOCK, rslock};
use crate::servers::cpu_of;
use crate::{bare, dlock};

pub fn rows() -> Vec<Row> {
    let row = Row::new(Family::Alone, "redlock-64", "Redlock on 5 servers, 64 tasks", alone);
    vec![row.needs("redis-server").at_least(1.0, RSLOCK)]
}

async fn alone(plan: Plan) -> Outcome {
    let nodes = RedisNodes::start();
    let ports: Vec<_> = nodes.servers.iter().map(Server::port).collect();
    contest(&ports, 64).await.probe(cpu_of(&nodes.servers)).measure(plan).await
}

/// All contenders on the servers behind these ports.
pub async fn contest(ports: &[u16], tasks: u32) -> Contest {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let urls = hosts.iter().map(|host| format!("redis://{host}/"));
    Contest::default()
        .with(dlock::alone(&format!("redlock://{}?bootstrap=true", hosts.join(",")), tasks).await)
        .with(limit(urls.clone().collect(), tasks).await)
        .with(rslock(urls.collect(), tasks))
}

/// The same two commands to each server at once.
async fn limit(urls: Vec<String>, tasks: u32) -> Contender {
    let mut connections = Vec::new();
    for url in urls {
        connections.push(bare::connect(&url).await);
    }
    let run = in_tasks(tasks, move |task, mut turns| {
        let mut connections = connections.clone();
        async move {
            let key = format!("bare:{task}");
            while turns.again() {
                cycles(&mut connections, &key).await;
            }
            turns
        }
    });
    Contender::new(Role::Limit, bare::NAME, run).remark("on Redlock, each server on its own")
}

fn cycles<'a>(
    connections: &'a mut [MultiplexedConnection],
    key: &'a str,
) -> impl Future<Output = ()> + Send + 'a {
    let all = connections.iter_mut().map(|connection| bare::cycle(connection, key));
    let all = join_all(all);
    async move { all.await.into_iter().for_each(|cycle| cycle.expect("the server runs")) }
}
