//! What is measured of dlock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dlock_runtime::{LockError, Registry};
use tokio::task::JoinSet;

use super::pace::{Pace, all, timed};

/// After a crash of this machine, the keys are free.
const TTL: Duration = Duration::from_secs(10);

/// A store that does not answer for that long ends the measurement.
const WAIT: Duration = Duration::from_mins(1);

/// What operators see of it.
const LABEL: &str = "dlock bench";

pub async fn reads(locks: &Registry, key: &str, pace: &Pace) -> Result<Vec<Duration>, LockError> {
    let mut tasks = JoinSet::new();
    let (locks, key, pace) = (locks.clone(), key.to_owned(), pace.clone());
    tasks.spawn(async move { timed(&pace, || locks.lock(&*key).inspect()).await });
    all(tasks).await
}

/// Locks that nobody else wants, each with its release: one task for each key.
pub async fn cycles(
    locks: &Registry,
    keys: &[String],
    pace: &Pace,
) -> Result<Vec<Duration>, LockError> {
    let mut tasks = JoinSet::new();
    for key in keys {
        let (locks, key, pace) = (locks.clone(), key.clone(), pace.clone());
        tasks.spawn(async move { timed(&pace, || cycle(&locks, &key)).await });
    }
    all(tasks).await
}

async fn cycle(locks: &Registry, key: &str) -> Result<(), LockError> {
    acquire(locks, key).await?.release().await
}

/// From the moment at which one connection begins to release the key, until another one has it.
pub async fn hand_overs(
    connections: &[Registry],
    key: &str,
    pace: &Pace,
) -> Result<Vec<Duration>, LockError> {
    let released = Arc::new(Mutex::new(None));
    let mut tasks = JoinSet::new();
    for (number, locks) in connections.iter().enumerate() {
        let (locks, key, pace) = (locks.clone(), key.to_owned(), pace.clone());
        tasks.spawn(hand_overs_to(number, locks, key, released.clone(), pace));
    }
    all(tasks).await
}

/// Which connection released the key last, and when.
type Released = Arc<Mutex<Option<(usize, Instant)>>>;

async fn hand_overs_to(
    number: usize,
    locks: Registry,
    key: String,
    released: Released,
    pace: Pace,
) -> Result<Vec<Duration>, LockError> {
    let mut times = Vec::new();
    while pace.goes_on() {
        let lock = acquire(&locks, &key).await?;
        {
            let mut last = released.lock().unwrap_or_else(PoisonError::into_inner);
            // The same connection again is no hand-over.
            times.extend(last.filter(|(by, _)| *by != number).map(|(_, at)| at.elapsed()));
            *last = Some((number, Instant::now()));
        }
        lock.release().await?;
    }
    Ok(times)
}

async fn acquire(locks: &Registry, key: &str) -> Result<dlock_runtime::LockGuard, LockError> {
    locks.lock(key).label(LABEL).ttl(TTL).wait(WAIT).acquire().await
}
