//! A release reserves the lock for the waiter that is first in line: what the stores with such a line have in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlock_runtime::FencingToken;
use dlock_runtime::backend::{Attempt, Backend, Claim, Mode, Release, Released, Watch};
use dlock_tests::servers::RedisServer;
use dlock_tests::trials::Trials;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use crate::databases::postgres::Postgres;

pub fn add(trials: &mut Trials) {
    macro_rules! on_each {
        ($($test:ident),* $(,)?) => { $(
            let test = $test::<RedisServer>;
            trials.needs("redis-server", concat!("redis_", stringify!($test)), test);
            let test = $test::<Postgres>;
            trials.needs("postgres", concat!("postgres_", stringify!($test)), test);
        )* };
    }
    on_each!(
        a_lock_goes_to_those_in_line_in_their_order,
        a_reservation_ends_soon_if_its_waiter_is_stopped,
        a_waiter_hears_after_the_runtime_that_listens_has_ended,
        a_waiter_that_has_left_gets_nothing,
        a_waiter_that_leaves_passes_its_reservation_on,
        random_schedules_of_waiters_exclude_each_other,
        readers_that_wait_are_not_passed_over,
    );
}

pub const KEY: &str = "k";
pub const TTL: Duration = Duration::from_secs(30);
pub const ABANDON: Release = Release { late_acquire: true, keep_for: None };

/// A server of a store with a line.
pub trait Server: Send + Sync + 'static {
    type Backend: Backend;

    fn start() -> Self;

    /// Another process.
    fn connect(&self) -> impl Future<Output = Self::Backend> + Send;

    /// Makes whatever is stored as the holder of [`KEY`] expire: a lease or a reservation.
    fn expire(&self) -> impl Future<Output = ()> + Send;

    /// Deletes everything that is stored.
    fn forget(&self) -> impl Future<Output = ()> + Send;
}

/// A process that waits for [`KEY`].
pub struct Waiter<B> {
    pub backend: B,
    pub watch: Box<dyn Watch>,
    pub claim: Claim,
}

pub fn claim() -> Claim {
    Claim::new(KEY.into(), TTL).with_wait_left(TTL)
}

/// The token, if granted.
pub async fn ask(backend: &impl Backend, claim: &mut Claim) -> Option<FencingToken> {
    match backend.try_acquire(claim).await.expect("an answer") {
        Attempt::Granted { token, .. } => {
            assert!(claim.token < Some(token), "{token} follows {:?}", claim.token);
            claim.token = Some(token);
            Some(token)
        }
        _ => None,
    }
}

/// The holder of the lock.
pub async fn held<S: Server>(server: &S) -> (S::Backend, Claim) {
    let (backend, mut claim) = (server.connect().await, claim());
    ask(&backend, &mut claim).await.expect("free");
    (backend, claim)
}

pub async fn release(backend: &impl Backend, claim: &Claim) {
    let released = backend.release(claim, Release::default()).await;
    assert_eq!(released.expect("an answer"), Released::Released);
}

impl<B: Backend> Waiter<B> {
    /// In line, and listening.
    pub async fn new<S: Server<Backend = B>>(server: &S) -> Self {
        let (backend, mut claim) = (server.connect().await, claim());
        let mut watch = backend.watch_for(&claim).await.expect("a subscription");
        assert_eq!(ask(&backend, &mut claim).await, None, "held by somebody else");
        // That the subscription begins may count as a change.
        let _ = futures_util::FutureExt::now_or_never(watch.changed());
        Self { backend, watch, claim }
    }

    pub async fn ask(&mut self) -> Option<FencingToken> {
        ask(&self.backend, &mut self.claim).await
    }

    pub async fn release(&mut self) {
        release(&self.backend, &self.claim).await;
    }
}

pub async fn a_lock_goes_to_those_in_line_in_their_order<S: Server>() {
    let server = S::start();
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
    assert!(ask(&first, &mut other).await > last);
}

pub async fn a_reservation_ends_soon_if_its_waiter_is_stopped<S: Server>() {
    let server = S::start();
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

pub async fn a_waiter_that_leaves_passes_its_reservation_on<S: Server>() {
    let server = S::start();
    let (first, holder) = held(&server).await;
    let gone = Waiter::new(&server).await;
    let mut next = Waiter::new(&server).await;
    release(&first, &holder).await;
    let left = gone.backend.release(&gone.claim, ABANDON).await.expect("an answer");
    assert_eq!(left, Released::Released, "it had the reservation");
    next.watch.changed().await;
    let listed = first.list(KEY).await.expect("an answer");
    assert!(listed[0].holders.is_empty(), "nobody holds it yet: {listed:?}");
    assert_eq!(listed[0].waiters[0].owner, Some(next.claim.owner), "{listed:?}");
    let late = gone.backend.try_acquire(&gone.claim).await.expect("an answer");
    assert!(matches!(late, Attempt::Busy { queued: false, .. }), "a late acquire: {late:?}");
    assert!(next.ask().await.is_some());
}

pub async fn a_waiter_that_has_left_gets_nothing<S: Server>() {
    let server = S::start();
    let (first, holder) = held(&server).await;
    let gone = Waiter::new(&server).await;
    gone.backend.release(&gone.claim, ABANDON).await.expect("an answer");
    // Executed late.
    let late = gone.backend.try_acquire(&gone.claim).await.expect("an answer");
    assert!(matches!(late, Attempt::Busy { queued: false, .. }), "{late:?}");
    release(&first, &holder).await;
    assert!(ask(&first, &mut claim()).await.is_some(), "nobody is in line");
}

pub async fn readers_that_wait_are_not_passed_over<S: Server>() {
    let server = S::start();
    let (first, holder) = held(&server).await;
    let mut writer = Waiter::new(&server).await;
    let mut reader = claim().with_mode(Mode::Shared);
    let _watch = first.watch_for(&reader).await.expect("a subscription");
    assert_eq!(ask(&first, &mut reader).await, None);
    release(&first, &holder).await;
    writer.watch.changed().await;
    assert!(ask(&first, &mut reader).await.is_some(), "free for those who come first");
    assert_eq!(writer.ask().await, None);
}

/// A claim in a random schedule.
struct Random {
    claim: Claim,
    is_gone: bool,
}

/// Processes ask, leave, release and crash at random, messages get lost, reservations and leases expire, and readers and
/// fair callers come in between. No two holders exclude each other, and tokens grow.
pub async fn random_schedules_of_waiters_exclude_each_other<S: Server>() {
    let server = S::start();
    let processes = [server.connect().await, server.connect().await, server.connect().await];
    // The first process never listens.
    let mut watches = vec![];
    for backend in &processes[1..] {
        watches.push(backend.watch_for(&claim()).await.expect("a subscription"));
    }
    for seed in 0..40 {
        server.forget().await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut log = vec![format!("schedule {seed}")];
        let (mut claims, mut holder, mut last) = (Vec::<Random>::new(), None::<usize>, None);
        for _ in 0..150 {
            if claims.len() < 8 || random.random_bool(0.1) {
                let wait = if random.random_bool(0.8) { TTL } else { Duration::ZERO };
                let fair = random.random_bool(0.1);
                let claim = Claim::new(KEY.into(), TTL).with_wait_left(wait).with_fair(fair);
                let block = [1, 1, 5][random.random_range(0..3)];
                claims.push(Random { claim: claim.with_token_block(block), is_gone: false });
            }
            let at = random.random_range(0..claims.len());
            let backend = &processes[at % processes.len()];
            let Random { claim, is_gone } = &mut claims[at];
            match random.random_range(0..10) {
                0..6 => {
                    let answer = backend.try_acquire(claim).await.expect("an answer");
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
                    backend.release(claim, ABANDON).await.expect("an answer");
                    log.push(format!("{at} leaves"));
                    *is_gone = true;
                }
                7 | 8 => {
                    let Some(at) = holder.take() else { continue };
                    let Random { claim, is_gone } = &mut claims[at];
                    let late_acquire = random.random_bool(0.3);
                    let how = Release { late_acquire, keep_for: None };
                    let backend = &processes[at % processes.len()];
                    let released = backend.release(claim, how).await.expect("an answer");
                    log.push(format!("{at} releases"));
                    assert_eq!(released, Released::Released, "{log:#?}");
                    *is_gone = true;
                    if !late_acquire {
                        // Its owner asks no more.
                        let next = Claim::new(KEY.into(), TTL).with_wait_left(TTL);
                        claims[at] = Random { claim: next, is_gone: false };
                    }
                }
                _ => {
                    // What is stored about the lock expires: a reservation, or the lease of a holder that is gone.
                    server.expire().await;
                    log.push("the lease expires".to_owned());
                    if let Some(at) = holder.take() {
                        claims[at].is_gone = true;
                        let claim = &claims[at].claim;
                        let backend = &processes[at % processes.len()];
                        backend.release(claim, ABANDON).await.expect("an answer");
                    }
                }
            }
        }
    }
}

/// The first task of a process that waits starts to listen for all of them, on its own runtime.
pub async fn a_waiter_hears_after_the_runtime_that_listens_has_ended<S: Server>() {
    let server = S::start();
    let (first, holder) = held(&server).await;
    let backend = Arc::new(server.connect().await);
    let (listens, listening) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let waits = Arc::clone(&backend);
    let other_runtime = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let watch = waits.watch_for(&claim()).await.expect("a subscription");
            listens.send(()).expect("the test waits");
            let _ = ended.await;
            drop(watch);
        });
    });
    listening.await.expect("a watch");
    let mut claim = claim();
    let mut watch = backend.watch_for(&claim).await.expect("a subscription");
    assert_eq!(ask(&backend, &mut claim).await, None);
    let _ = futures_util::FutureExt::now_or_never(watch.changed());
    end.send(()).expect("the thread waits");
    other_runtime.join().expect("no panic");
    // That nobody listens, and then that somebody listens again.
    for _ in 0..2 {
        watch.changed().await;
        assert_eq!(ask(&backend, &mut claim).await, None);
    }
    release(&first, &holder).await;
    watch.changed().await;
    assert!(ask(&backend, &mut claim).await.is_some());
}
