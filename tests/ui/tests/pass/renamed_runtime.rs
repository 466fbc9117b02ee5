extern crate dlock_runtime as locks;

use locks::{LockError, distributed_lock};

mod dlock_runtime {}

#[distributed_lock(keys = ["account:<from>", "account:<to>"], wait = "forever", crate = ::locks)]
async fn transfer(from: u64, to: u64) -> Result<(), LockError> {
    println!("{from} {to}");
    Ok(())
}

fn main() {
    let _ = transfer(1, 2);
    assert_eq!(locks::Registry::sites()[0].function(), "transfer");
}
