//! The expansion names everything by its full path.

#![no_implicit_prelude]

use ::dlock_runtime::{LockError, distributed_lock};

#[distributed_lock(key = "product:<id>", ttl = "5s")]
async fn purchase(id: u64) -> ::core::result::Result<u64, LockError> {
    ::core::result::Result::Ok(id)
}

fn main() {
    let _ = purchase(1);
}
