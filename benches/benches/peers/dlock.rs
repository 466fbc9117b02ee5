//! dlock as a contender: a registry on a backend, with the defaults that a service has.

use std::future::ready;

use dlock_benches::contender::{Contender, in_tasks};
use dlock_runtime::{Handover, Registry};

/// A registry on this server, as in a process of its own.
pub async fn registry(url: &str) -> Registry {
    registry_with(url, Handover::DEFAULT).await
}

/// The same, which passes leases so far.
pub async fn registry_with(url: &str, handover: Handover) -> Registry {
    let backend = dlock_runtime::connect(url).await.expect("the server runs");
    let builder = Registry::builder().backend("store", backend).default_handover(handover);
    builder.build().expect("a registry")
}

/// This many tasks, each with a key of its own.
pub async fn alone(url: &str, tasks: u32) -> Contender {
    let registry = registry(url).await;
    Contender::dlock(in_tasks(tasks, move |task, mut turns| {
        let registry = registry.clone();
        async move {
            let key = format!("own:{task}");
            while turns.again() {
                registry.lock(&key).run(ready(())).await.expect("the lock");
            }
            turns
        }
    }))
}
