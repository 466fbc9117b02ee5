//! Who waits for whom, across processes: what a process finds out about holders of another one.

use std::time::{Duration, Instant};

use dlock_runtime::{HolderSite, Registry};
use dlock_tests::servers::RedisServer;
use dlock_tests::trials::Trials;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::databases::postgres::Postgres;
use crate::hand_over::Server;

pub fn add(trials: &mut Trials) {
    macro_rules! on_each {
        ($($test:ident),* $(,)?) => { $(
            let test = $test::<RedisServer>;
            trials.needs("redis-server", concat!("redis_", stringify!($test)), test);
            let test = $test::<Postgres>;
            trials.needs("postgres", concat!("postgres_", stringify!($test)), test);
        )* };
    }
    on_each!(the_site_of_another_process_that_holds_most_is_found_in_ten_seconds);
}

async fn process<S: Server>(server: &S) -> Registry {
    let registry = Registry::builder().backend("shop", server.connect().await).build();
    registry.expect("a registry")
}

/// Holds the lock again and again, each time for so long. Returns how long it has waited in all.
async fn hold_often(
    locks: Registry,
    site: &'static str,
    hold: Duration,
    until: Instant,
) -> Duration {
    let mut waited = Duration::ZERO;
    while Instant::now() < until {
        let began = Instant::now();
        let lock = locks.lock("product:1").label(site).wait(Duration::from_mins(1));
        let guard = lock.acquire().await.expect("it is free in time");
        waited += began.elapsed();
        sleep(hold).await;
        guard.release().await.expect("held");
    }
    waited
}

async fn the_site_of_another_process_that_holds_most_is_found_in_ten_seconds<S: Server>() {
    let server = S::start();
    let (here, there) = (process(&server).await, process(&server).await);
    let until = Instant::now() + Duration::from_secs(9);
    let stock = Duration::from_millis(450);
    let other = tokio::spawn(hold_often(there, "shop::take_stock", stock, until));
    let mut customers = JoinSet::new();
    for _ in 0..5 {
        let hold = Duration::from_millis(10);
        customers.spawn(hold_often(here.clone(), "shop::purchase", hold, until));
    }
    let waited: Duration = customers.join_all().await.into_iter().sum();
    other.await.expect("no panic");
    let contention = here.contention();
    let charged = contention.waited();
    assert!(charged.abs_diff(waited) < waited / 20, "{waited:?} {contention:?}");
    let culprit = HolderSite::Elsewhere("shop::take_stock".to_owned());
    assert_eq!(contention.blame[0].holder, culprit, "{contention:?}");
    assert!(contention.blame[0].waited > charged * 3 / 4, "{contention:?}");
}
