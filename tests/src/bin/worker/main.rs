//! One of several processes that contend for the same lock; see `dlock_tests::workers`.

use std::time::Duration;

use dlock_runtime::testing::Intercepted;
use dlock_runtime::{Lock, LockError, Mode, Registry, Wait};
use futures_util::future::try_join_all;
use serde_json::Value;

mod shop;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let order: Value = serde_json::from_str(&std::env::args().nth(1).ok_or("missing order")?)?;
    let text =
        |name: &str| order[name].as_str().map(str::to_owned).ok_or(format!("{name}: not a text"));
    let number = |name: &str| order[name].as_u64().ok_or(format!("{name}: not a number"));
    if text("do")? == "buy" {
        return shop::buy(order["locks"].as_str(), &text("shop")?).await;
    }
    let store = Intercepted::new(dlock_runtime::connect(&text("url")?).await?);
    let registry = Registry::builder().backend("shared", store.clone());
    let ttl = Duration::from_millis(order["ttl_ms"].as_u64().unwrap_or(30_000));
    let registry = registry.default_ttl(ttl).build()?;
    match &*text("do")? {
        "hold" => hold(registry.lock(text("key")?)).await?,
        "share" => hold(registry.lock(text("key")?).mode(Mode::Shared)).await?,
        "count_in" => {
            let permits = u32::try_from(number("permits")?)?.try_into()?;
            hold(registry.lock(text("key")?).permits(permits)).await?;
        }
        "queue_up" => {
            let waits = async {
                store.waits_in_queue().await;
                println!("waiting");
            };
            let held = hold(registry.lock(text("key")?).fair(true));
            let ((), held) = tokio::join!(waits, held);
            held?;
        }
        "count" => {
            let locked = order["locked"].as_bool().unwrap_or(true);
            let (key, file) = (text("key")?, text("file")?);
            let tasks = (0..number("tasks")?)
                .map(|_| count(&registry, &key, &file, order["rounds"].as_u64(), locked));
            try_join_all(tasks).await?;
        }
        other => return Err(format!("unknown order: {other}").into()),
    }
    Ok(registry.shutdown(Duration::from_secs(5)).await?)
}

/// Holds the lock until it is lost. Prints its token, and then how it ended.
async fn hold(lock: Lock) -> Result<(), Failure> {
    let guard = lock.wait(Wait::Forever).acquire().await?;
    println!("held {}", guard.fencing_token());
    let lost = guard.lost().await;
    println!("{}", if lost.is_lost() { "lost" } else { "ended otherwise" });
    match guard.release().await {
        Ok(()) | Err(LockError::Lost { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Increments the number in the file with an unprotected read, pause and write.
async fn count(
    registry: &Registry,
    key: &str,
    file: &str,
    rounds: Option<u64>,
    locked: bool,
) -> Result<(), Failure> {
    for _ in 0..rounds.unwrap_or(1) {
        let increment = async {
            let read: u64 = std::fs::read_to_string(file)?.trim().parse().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(1)).await;
            // Renamed into place, so that a reader never sees a partial file.
            let new = format!("{file}.{}.{:p}", std::process::id(), &raw const read);
            std::fs::write(&new, (read + 1).to_string())?;
            std::fs::rename(&new, file)?;
            Ok::<(), Failure>(())
        };
        if locked {
            registry.lock(key).wait(Duration::from_mins(2)).run(increment).await??;
        } else {
            increment.await?;
        }
    }
    Ok(())
}
