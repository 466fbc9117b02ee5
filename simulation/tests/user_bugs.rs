//! Programs of users: the simulation finds what is wrong with them, and does not accuse those that are right.

mod user_bugs {
    pub mod shop;
    pub mod wrong {
        pub mod stock_read_before_lock;
        pub mod write_without_token;
    }
    pub mod right {
        pub mod fenced_purchase;
    }
}

use dlock_runtime::sim::Explorer;
use std::time::Instant;

#[test]
fn t() {
    let _ = Explorer::new(0..1).replay(0, user_bugs::right::fenced_purchase::scenario); if std::env::var_os("DBG").is_some() { return; }
    let b = Instant::now();
    let e = Explorer::new(0..100_000).threads(2).try_run(user_bugs::wrong::stock_read_before_lock::scenario).unwrap_err();
    println!("{:?}\n{e}", b.elapsed());
    let b = Instant::now();
    let e = Explorer::new(0..100_000).threads(2).try_run(user_bugs::wrong::write_without_token::scenario).unwrap_err();
    println!("{:?}\n{e}", b.elapsed());
    let b = Instant::now();
    println!("{}", Explorer::new(0..2_000).threads(2).try_run(user_bugs::right::fenced_purchase::scenario).unwrap());
    println!("{}", Explorer::new(0..2_000).threads(2).without_tokio_timers().try_run(user_bugs::right::fenced_purchase::scenario).unwrap());
}
