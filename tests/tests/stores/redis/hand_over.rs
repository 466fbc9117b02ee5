//! What is particular to the line of Redis: messages that reach nobody, gaps, users with few privileges.

use std::time::{Duration, Instant};

use dlock_runtime::backend::{Backend, Redis, Release, Renewal};
use dlock_runtime::{Handover, Registry, Wait};
use dlock_tests::servers::RedisServer;
use futures_util::future::join_all;
use redis::AsyncCommands;

use super::batches::{executed, reset};
use super::{acquire, plain, registry, steps};
use crate::hand_over::{Server, Waiter, ask, claim, held, release};

impl Server for RedisServer {
    type Backend = Redis;

    fn start() -> Self {
        Self::start()
    }

    async fn connect(&self) -> Redis {
        Redis::connect(&self.url()).await.expect("the server runs")
    }

    async fn expire(&self) {
        let _: i64 = plain(self).await.del("dlock:{k}").await.expect("DEL");
    }

    async fn forget(&self) {
        let () =
            redis::cmd("FLUSHALL").query_async(&mut plain(self).await).await.expect("FLUSHALL");
    }
}

pub(super) async fn a_waiter_that_no_message_reaches_keeps_its_position() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let (deaf, mut deaf_claim) = (server.connect().await, claim());
    assert_eq!(ask(&deaf, &mut deaf_claim).await, None);
    let mut hearing = [Waiter::new(&server).await, Waiter::new(&server).await];
    release(&first, &holder).await;
    let (began, mut turns) = (Instant::now(), 0);
    while ask(&deaf, &mut deaf_claim).await.is_none() {
        let one = &mut hearing[turns % 2];
        one.watch.changed().await;
        one.ask().await.expect("reserved for it");
        one.release().await;
        one.claim = claim();
        assert_eq!(one.ask().await, None, "in line again, behind the other two");
        turns += 1;
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "not skipped: its turn came after {took:?}");
    assert!(turns >= 2, "others had their turns meanwhile: {turns}");
}

pub(super) async fn a_reservation_is_not_renewed_and_can_be_ended_by_force() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let mut one = Waiter::new(&server).await;
    let mut next = Waiter::new(&server).await;
    release(&first, &holder).await;
    let renewed = Backend::renew(&first, &holder).await.expect("an answer");
    assert_eq!(renewed, Renewal::NotHeld);
    one.watch.changed().await;
    let renewed = Backend::renew(&one.backend, &one.claim).await.expect("an answer");
    assert_eq!(renewed, Renewal::NotHeld, "not a lease yet");
    assert!(!Backend::revoke(&first, &"k".into()).await.expect("an answer"), "nobody holds it");
    assert!(!Backend::force_release(&first, &"k".into()).await.expect("an answer"));
    next.watch.changed().await;
    assert_eq!(one.ask().await, None, "reserved for the next one");
    assert!(next.ask().await.is_some());
}

/// Waiters that come and go leave gaps.
pub(super) async fn a_long_line_of_those_who_left_does_not_hide_the_next_one() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let mut head = Waiter::new(&server).await;
    let gone: Vec<_> = (0..5_000).map(|_| claim()).collect();
    for some in gone.chunks(100) {
        let joined = some.iter().map(|claim| Backend::try_acquire(&first, claim));
        assert!(join_all(joined).await.iter().all(Result::is_ok));
        let left = some.iter().map(|claim| Backend::release(&first, claim, Release::default()));
        assert!(join_all(left).await.iter().all(Result::is_ok));
        // A sign of life.
        assert_eq!(head.ask().await, None);
    }
    let mut last = Waiter::new(&server).await;
    release(&first, &holder).await;
    head.watch.changed().await;
    head.ask().await.expect("reserved");
    head.release().await;
    last.watch.changed().await;
    last.ask().await.expect("reserved");
    last.release().await;
    let fields: usize = plain(&server).await.hlen("dlock:{k}:line").await.expect("HLEN");
    assert_eq!(fields, 0);
}

/// More of them than a release looks at.
pub(super) async fn waiters_behind_many_that_cannot_be_reached_are_notified() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    for _ in 0..70 {
        assert_eq!(ask(&first, &mut claim()).await, None);
    }
    let mut waiter = Waiter::new(&server).await;
    release(&first, &holder).await;
    waiter.watch.changed().await;
    assert!(waiter.ask().await.is_some(), "free");
}

pub(super) async fn a_user_without_hashes_is_notified_as_before() {
    let server = RedisServer::start();
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("plain").arg("on").arg(">word");
    acl.arg(&["&dlock:*", "~dlock:*", "+@all", "-@hash"]);
    let () = acl.query_async(&mut plain(&server).await).await.expect("ACL SETUSER");
    let url = format!("redis://plain:word@127.0.0.1:{}/", server.port());
    let connect = async || steps::registry(Redis::connect(&url).await.expect("a user"));
    let registries = [connect().await, connect().await];
    steps::hand_over_without_polling(&registries).await;
    // One of each kind. The one without the commands does not hand over.
    steps::hand_over_without_polling(&[connect().await, registry(&server).await]).await;
}

/// Tasks of several processes that want one key, without passing leases inside a process.
pub(super) async fn a_contended_cycle_takes_about_three_scripts() {
    const PROCESSES: usize = 4;
    const CYCLES: u64 = 400;
    let server = RedisServer::start();
    let registries = join_all((0..PROCESSES).map(|_| registry(&server))).await;
    acquire(&registries[0], "warm").await.release().await.expect("held");
    reset(&server);
    let task = async |registry: &Registry| {
        let lock = registry.lock("k").wait(Wait::Forever).handover(Handover::OFF);
        for _ in 0..CYCLES / 16 {
            let guard = lock.clone().acquire().await.expect("the lock");
            guard.release().await.expect("held");
        }
    };
    join_all(registries.iter().flat_map(|one| [one; 4]).map(task)).await;
    let scripts = executed(&server)["evalsha"];
    assert!(scripts <= CYCLES * 7 / 2, "{scripts} scripts for {CYCLES} cycles");
}
