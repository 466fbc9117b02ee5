#![forbid(unsafe_code)]
#![deny(warnings)]

use dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(
    key = "product:<id>",
    ttl = "5s",
    wait = "0s",
    backend = "redis",
    renew = false,
    max_hold = "4s",
    min_hold = "100ms",
    grace = "1s",
    on_busy = "skip",
    on_lost = "keep",
    reentrant = false,
    guard = lock,
    map_err = LockError::from,
    crate = ::dlock_runtime
)]
pub async fn purchase(id: u64) -> Result<Option<u64>, LockError> {
    println!("{}", lock.fencing_token());
    Ok(Some(id))
}

#[distributed_lock(key = "product:<id>", handover = "64 in 10ms")]
pub async fn passes(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

#[distributed_lock(key = "product:<id>", handover = "off")]
pub async fn passes_nothing(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

fn main() {
    let _ = (passes(1), passes_nothing(1));
    let _ = purchase(1);
}
