//! Long queues: what a look costs, and that the order is kept.

use std::time::Duration;

use dlock_runtime::Mode;
use dlock_runtime::backend::{AsyncBackend, Attempt, Claim, Redis, Release};
use dlock_tests::servers::RedisServer;

use super::batches::{executed, reset};

const WAITERS: usize = 30;

/// A waiter in the queue of the one key, or its holder.
fn fair() -> Claim {
    let mut claim = Claim::new("k".into(), Duration::from_mins(1));
    claim.fair = true;
    claim.wait_left = Duration::from_mins(1);
    claim
}

/// When to look again, for a claim that has a place in the queue.
async fn look(redis: &Redis, claim: &Claim) -> Duration {
    match redis.try_acquire(claim).await.expect("an answer") {
        Attempt::Busy { queued: true, expires_in: Some(look), .. } => look,
        other => panic!("it is not in the queue: {other:?}"),
    }
}

async fn granted(redis: &Redis, claim: &Claim) {
    let attempt = redis.try_acquire(claim).await.expect("an answer");
    assert!(matches!(attempt, Attempt::Granted { .. }), "it is not its turn: {attempt:?}");
}

async fn release(redis: &Redis, claim: &Claim) {
    redis.release(claim, Release::default()).await.expect("an answer");
}

pub(super) async fn a_look_from_behind_in_a_long_queue_writes_nothing() {
    let server = RedisServer::start();
    let redis = Redis::connect(&server.url()).await.expect("the server runs");
    let holder = fair();
    granted(&redis, &holder).await;
    let waiters: Vec<_> = (0..WAITERS).map(|_| fair()).collect();
    for waiter in &waiters {
        look(&redis, waiter).await;
    }
    // The first waiter shows that it is alive.
    look(&redis, &waiters[0]).await;
    reset(&server);
    let millis = Duration::from_millis;
    assert!(look(&redis, &waiters[1]).await <= millis(200), "it watches over the first one");
    assert_eq!(look(&redis, &waiters[2]).await, millis(400));
    assert_eq!(look(&redis, &waiters[WAITERS - 1]).await, millis(1_000));
    let executed = executed(&server);
    for (command, calls) in [("evalsha", 3), ("get", 3), ("exists", 3), ("time", 3)] {
        assert_eq!(executed.get(command), Some(&calls), "{command}");
    }
    assert_eq!(executed.get("set"), None, "a look from behind writes nothing");
}

pub(super) async fn writers_behind_readers_look_as_often_as_before() {
    let server = RedisServer::start();
    let redis = Redis::connect(&server.url()).await.expect("the server runs");
    let mut reader = fair();
    reader.mode = Mode::Shared;
    granted(&redis, &reader).await;
    // They are not fair, and only in the queue so that later readers do not overtake them.
    let mut writers = [fair(), fair(), fair()];
    for writer in &mut writers {
        writer.fair = false;
    }
    for writer in writers.iter().chain(&writers) {
        assert!(look(&redis, writer).await <= Duration::from_millis(200));
    }
    release(&redis, &reader).await;
    // No order among them.
    granted(&redis, &writers[2]).await;
}

pub(super) async fn a_long_queue_is_served_in_order() {
    let server = RedisServer::start();
    let redis = Redis::connect(&server.url()).await.expect("the server runs");
    let mut holder = fair();
    granted(&redis, &holder).await;
    let waiters: Vec<_> = (0..WAITERS).map(|_| fair()).collect();
    for waiter in &waiters {
        look(&redis, waiter).await;
    }
    for (at, next) in waiters.iter().enumerate() {
        release(&redis, &holder).await;
        // From behind, so that everybody asks before the waiter whose turn it is.
        for other in waiters[at + 1..].iter().rev() {
            look(&redis, other).await;
        }
        granted(&redis, next).await;
        holder = next.clone();
    }
}
