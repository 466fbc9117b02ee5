//! A release reserves the lock for the waiter that is first in line.

use std::time::{Duration, Instant};

use dlock_runtime::backend::{
    Attempt, Backend, Claim, Mode, Redis, Release, Released, Renewal, Watch,
};
use dlock_runtime::{FencingToken, Handover, Registry, Wait};
use dlock_tests::servers::RedisServer;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::AsyncCommands;

use super::batches::{executed, reset};
use super::{acquire, plain, registry, steps};

const TTL: Duration = Duration::from_secs(30);
const ABANDON: Release = Release { late_acquire: true, keep_for: None };

/// A process that waits for the key `k`.
struct Waiter {
    redis: Redis,
    watch: Box<dyn Watch>,
    claim: Claim,
}

fn claim() -> Claim {
    Claim::new("k".into(), TTL).with_wait_left(TTL)
}

async fn backend(server: &RedisServer) -> Redis {
    Redis::connect(&server.url()).await.expect("the server runs")
}

/// The token, if granted.
async fn ask(redis: &Redis, claim: &mut Claim) -> Option<FencingToken> {
    match Backend::try_acquire(redis, claim).await.expect("an answer") {
        Attempt::Granted { token, .. } => {
            assert!(claim.token < Some(token), "{token} follows {:?}", claim.token);
            claim.token = Some(token);
            Some(token)
        }
        _ => None,
    }
}

/// The holder of the lock.
async fn held(server: &RedisServer) -> (Redis, Claim) {
    let (redis, mut claim) = (backend(server).await, claim());
    ask(&redis, &mut claim).await.expect("free");
    (redis, claim)
}

async fn release(redis: &Redis, claim: &Claim) {
    let released = Backend::release(redis, claim, Release::default()).await;
    assert_eq!(released.expect("an answer"), Released::Released);
}

impl Waiter {
    /// In line, and listening.
    async fn new(server: &RedisServer) -> Self {
        let (redis, mut claim) = (backend(server).await, claim());
        let mut watch = Backend::watch(&redis, &"k".into()).await.expect("a subscription");
        // That the subscription begins may count as a change.
        let _ = futures_util::FutureExt::now_or_never(watch.changed());
        assert_eq!(ask(&redis, &mut claim).await, None, "held by somebody else");
        Self { redis, watch, claim }
    }

    async fn ask(&mut self) -> Option<FencingToken> {
        ask(&self.redis, &mut self.claim).await
    }

    async fn release(&mut self) {
        release(&self.redis, &self.claim).await;
    }
}

pub(super) async fn a_lock_goes_to_those_in_line_in_their_order() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let mut waiters = vec![];
    for _ in 0..5 {
        waiters.push(Waiter::new(&server).await);
    }
    let (mut other, mut last) = (claim(), holder.token);
    release(&first, &holder).await;
    for waiter in &mut waiters {
        waiter.watch.changed().await;
        assert_eq!(ask(&first, &mut other.clone()).await, None, "reserved");
        let token = waiter.ask().await;
        assert!(token > last, "{token:?} follows {last:?}");
        last = token;
        waiter.release().await;
    }
    // It was in line too, behind them, but does not listen.
    assert!(ask(&first, &mut other).await > last);
}

pub(super) async fn a_reservation_ends_soon_if_its_waiter_is_stopped() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let mut stopped = Waiter::new(&server).await;
    let mut next = Waiter::new(&server).await;
    release(&first, &holder).await;
    let released = Instant::now();
    while next.ask().await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = released.elapsed();
    assert!(took < Duration::from_secs(5), "only {took:?} after the release");
    assert_eq!(stopped.ask().await, None, "its reservation is over");
    next.release().await;
    // It has joined the line anew.
    stopped.watch.changed().await;
    assert!(stopped.ask().await.is_some());
}

pub(super) async fn a_waiter_that_leaves_passes_its_reservation_on() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let gone = Waiter::new(&server).await;
    let mut next = Waiter::new(&server).await;
    release(&first, &holder).await;
    let left = Backend::release(&gone.redis, &gone.claim, ABANDON).await.expect("an answer");
    assert_eq!(left, Released::Released, "it had the reservation");
    next.watch.changed().await;
    let listed = Backend::list(&first, "k").await.expect("an answer");
    assert!(listed[0].holders.is_empty(), "nobody holds it yet: {listed:?}");
    assert_eq!(listed[0].waiters[0].owner, Some(next.claim.owner), "{listed:?}");
    let late = Backend::try_acquire(&gone.redis, &gone.claim).await.expect("an answer");
    assert!(matches!(late, Attempt::Busy { queued: false, .. }), "a late acquire: {late:?}");
    assert!(next.ask().await.is_some());
}

pub(super) async fn a_waiter_that_has_left_gets_nothing() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let gone = Waiter::new(&server).await;
    Backend::release(&gone.redis, &gone.claim, ABANDON).await.expect("an answer");
    // Executed late.
    let late = Backend::try_acquire(&gone.redis, &gone.claim).await.expect("an answer");
    assert!(matches!(late, Attempt::Busy { queued: false, .. }), "{late:?}");
    release(&first, &holder).await;
    assert!(ask(&first, &mut claim()).await.is_some(), "nobody is in line");
}

pub(super) async fn a_waiter_that_no_message_reaches_keeps_its_position() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let (deaf, mut deaf_claim) = (backend(&server).await, claim());
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
    let renewed = Backend::renew(&one.redis, &one.claim).await.expect("an answer");
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

pub(super) async fn readers_that_wait_are_not_passed_over() {
    let server = RedisServer::start();
    let (first, holder) = held(&server).await;
    let mut writer = Waiter::new(&server).await;
    let mut reader = claim().with_mode(Mode::Shared);
    assert_eq!(ask(&first, &mut reader).await, None);
    release(&first, &holder).await;
    writer.watch.changed().await;
    assert!(ask(&first, &mut reader).await.is_some(), "free for those who come first");
    assert_eq!(writer.ask().await, None);
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

/// A claim in a random schedule.
struct Random {
    claim: Claim,
    is_gone: bool,
}

/// Processes ask, leave, release and crash at random, messages get lost, reservations and leases expire, and readers and
/// fair callers come in between. No two holders exclude each other, and tokens grow.
pub(super) async fn random_schedules_of_waiters_exclude_each_other() {
    let server = RedisServer::start();
    let mut connection = plain(&server).await;
    let processes = join_all((0..3).map(|_| backend(&server))).await;
    // The first process never listens.
    let mut watches = vec![];
    for redis in &processes[1..] {
        watches.push(Backend::watch(redis, &"k".into()).await.expect("a subscription"));
    }
    for seed in 0..40 {
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("FLUSHALL");
        let mut random = StdRng::seed_from_u64(seed);
        let mut log = vec![format!("schedule {seed}")];
        let (mut claims, mut holder, mut last) = (Vec::<Random>::new(), None::<usize>, None);
        for _ in 0..150 {
            if claims.len() < 8 || random.random_bool(0.1) {
                let wait = if random.random_bool(0.8) { TTL } else { Duration::ZERO };
                let fair = random.random_bool(0.1);
                let claim = Claim::new("k".into(), TTL).with_wait_left(wait).with_fair(fair);
                let block = [1, 1, 5][random.random_range(0..3)];
                claims.push(Random { claim: claim.with_token_block(block), is_gone: false });
            }
            let at = random.random_range(0..claims.len());
            let redis = &processes[at % processes.len()];
            let Random { claim, is_gone } = &mut claims[at];
            match random.random_range(0..10) {
                0..6 => {
                    let answer = Backend::try_acquire(redis, claim).await.expect("an answer");
                    log.push(format!("{at} asks: {answer:?}"));
                    if let Attempt::Granted { token, token_block, .. } = answer {
                        assert!(!*is_gone, "granted to one that has left: {log:#?}");
                        let end = token.get() + u64::from(token_block) - 1;
                        if holder == Some(at) {
                            assert_eq!(claim.token.map(FencingToken::get), Some(end), "{log:#?}");
                        } else {
                            assert_eq!(holder, None, "two hold: {log:#?}");
                            assert!(Some(token.get()) > last, "an older token: {log:#?}");
                            claim.token = Some(FencingToken::new(end));
                            // Once granted, a request is repeated with one token.
                            (claim.token_block, holder, last) = (1, Some(at), Some(end));
                        }
                    } else {
                        assert_ne!(holder, Some(at), "its grant is forgotten: {log:#?}");
                    }
                }
                6 if holder != Some(at) && !*is_gone => {
                    Backend::release(redis, claim, ABANDON).await.expect("an answer");
                    log.push(format!("{at} leaves"));
                    *is_gone = true;
                }
                7 | 8 => {
                    let Some(at) = holder.take() else { continue };
                    let Random { claim, is_gone } = &mut claims[at];
                    let late_acquire = random.random_bool(0.3);
                    let how = Release { late_acquire, keep_for: None };
                    let redis = &processes[at % processes.len()];
                    let released = Backend::release(redis, claim, how).await.expect("an answer");
                    log.push(format!("{at} releases"));
                    assert_eq!(released, Released::Released, "{log:#?}");
                    *is_gone = true;
                    if !late_acquire {
                        // Its owner asks no more.
                        let next = Claim::new("k".into(), TTL).with_wait_left(TTL);
                        claims[at] = Random { claim: next, is_gone: false };
                    }
                }
                _ => {
                    // What is stored about the lock expires: a reservation, or the lease of a holder that is gone.
                    let _: i64 = connection.del("dlock:{k}").await.expect("DEL");
                    log.push("the lease expires".to_owned());
                    if let Some(at) = holder.take() {
                        claims[at].is_gone = true;
                        let claim = &claims[at].claim;
                        let redis = &processes[at % processes.len()];
                        Backend::release(redis, claim, ABANDON).await.expect("an answer");
                    }
                }
            }
        }
    }
}
