//! What an uncontended call costs, counted rather than timed.

use crate::Registry;
use crate::backend::Memory;
use crate::clock::readings;

#[tokio::test]
async fn an_uncontended_call_reads_a_clock_seven_times() {
    let locks = Registry::builder().backend("memory", Memory::new()).build().unwrap();
    // The first call starts the watchdog, which finds out whether tokio's clock is paused.
    locks.lock("k").run(async {}).await.unwrap();
    let mut fewest = usize::MAX;
    // Where the thread is preempted between two readings, a call reads more.
    for _ in 0..10 {
        let before = readings::counted();
        locks.lock("k").run(async {}).await.unwrap();
        fewest = fewest.min(readings::counted() - before);
    }
    // Two when the call begins, one in each request of the store, and one in each check: when the grant arrives, before
    // the body is polled, and before the release.
    let for_metrics = if cfg!(feature = "metrics") { 2 } else { 0 };
    assert_eq!(fewest, 7 + for_metrics);
}
