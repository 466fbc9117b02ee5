//! Every store that keeps holders and waiters as data decides as the memory backend does. Random requests are sent
//! to both, and the answers are compared.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use dlock_runtime::ClientInfo;
use dlock_runtime::backend::{
    Attempt, Backend, Claim, Holder, Memory, Mode, MySql, Postgres, Redis, Release, Released,
    Renewal, SetAttempt, Sqlite, Waiter,
};
use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer};
use dlock_tests::trials::Trials;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::steps::sqlite_file;

/// Nothing expires during a test.
const LONG: Duration = Duration::from_mins(10);

/// A first waiter that is silent for longer counts as absent, so slower runs are not compared.
const QUICK: Duration = Duration::from_millis(250);

const COMPARED: usize = 150;

pub(super) fn add(trials: &mut Trials) {
    trials.add("sqlite_decides_as_memory_does", || async {
        let (_folder, url) = sqlite_file();
        let store = Sqlite::connect(&url).await.expect("a file");
        compare(&store).await;
        compare_sets(&store).await;
    });
    trials.needs("redis-server", "redis_decides_as_memory_does", || async {
        let server = RedisServer::start();
        let store = Redis::connect(&server.url()).await.expect("it runs");
        compare(&store).await;
        compare_sets(&store).await;
    });
    trials.needs("postgres", "postgres_decides_as_memory_does", || async {
        let server = PostgresServer::start();
        let store = Postgres::connect(&server.url()).await.expect("it runs");
        compare(&store).await;
        compare_sets(&store).await;
    });
    trials.needs("mariadbd", "mysql_decides_as_memory_does", || async {
        let server = MariaDbServer::start();
        let store = MySql::connect(&server.url()).await.expect("it runs");
        compare(&store).await;
        compare_sets(&store).await;
    });
    trials.add("memory_never_shortens_a_lease", || async {
        never_shortens_a_lease(&Memory::new()).await;
    });
    trials.add("sqlite_never_shortens_a_lease", || async {
        let (_folder, url) = sqlite_file();
        never_shortens_a_lease(&Sqlite::connect(&url).await.expect("a file")).await;
    });
    trials.needs("postgres", "postgres_never_shortens_a_lease", || async {
        let server = PostgresServer::start();
        never_shortens_a_lease(&Postgres::connect(&server.url()).await.expect("it runs")).await;
    });
    trials.needs("mariadbd", "mysql_never_shortens_a_lease", || async {
        let server = MariaDbServer::start();
        never_shortens_a_lease(&MySql::connect(&server.url()).await.expect("it runs")).await;
    });
}

/// A delayed request computes the lease's end from when it was sent, which may be earlier than the end written by
/// a later but faster request.
async fn never_shortens_a_lease(store: &impl Backend) {
    for mode in [Mode::Exclusive, Mode::Shared] {
        let key = format!("{mode:?}");
        let claim = Claim::new(key.clone().into(), LONG).with_mode(mode);
        assert!(matches!(ask(store, &claim, Request::Acquire).await, Answer::Granted));
        let mut delayed = claim.clone();
        delayed.ttl = Duration::from_secs(1);
        for request in [Request::Renew, Request::Acquire, Request::Renew] {
            let answer = ask(store, &delayed, request).await;
            assert!(matches!(answer, Answer::Held(true) | Answer::Granted), "{answer:?}");
            let holder = store.inspect(&key.clone().into()).await.expect("it answers");
            let left = holder.expect("it is held").expires_in;
            assert!(left > LONG / 2, "{mode:?}, {request:?}: only {left:?} are left");
        }
    }
}

/// A request to a store.
#[derive(Clone, Copy, Debug)]
enum Request {
    Acquire,
    Renew,
    Release,
    Revoke,
}

/// An answer of a store, without times and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    Busy { queued: bool },
    Held(bool),
}

async fn ask(store: &impl Backend, claim: &Claim, request: Request) -> Answer {
    match request {
        Request::Acquire => match store.try_acquire(claim).await.expect("it answers") {
            Attempt::Granted { .. } => Answer::Granted,
            Attempt::Busy { queued, .. } => Answer::Busy { queued },
            other => panic!("{other:?}"),
        },
        Request::Renew => {
            let renewed = store.renew(claim).await.expect("it answers");
            Answer::Held(matches!(renewed, Renewal::Renewed { .. }))
        }
        Request::Release => {
            let released = store.release(claim, Release::default()).await.expect("it answers");
            Answer::Held(released == Released::Released)
        }
        Request::Revoke => Answer::Held(store.revoke(&claim.key).await.expect("it answers")),
    }
}

/// The holders and waiters under this key prefix, without times and tokens.
async fn seen(store: &impl Backend, key: &str) -> Vec<String> {
    let states = store.list(key).await.expect("it answers");
    let who = |client_info: &Option<ClientInfo>| client_info.as_ref().map(ClientInfo::to_text);
    let mut seen = vec![];
    for state in states {
        for Holder { owner, mode, client_info, revoked, .. } in &state.holders {
            seen.push(format!("holds {owner:?} {mode:?} {revoked} {:?}", who(client_info)));
        }
        for Waiter { owner, mode, client_info, .. } in &state.waiters {
            seen.push(format!("waits {owner:?} {mode:?} {:?}", who(client_info)));
        }
    }
    seen
}

/// Tries to acquire a set of one or more keys.
async fn ask_all(store: &impl Backend, claims: &[Claim]) -> String {
    match store.try_acquire_set(claims).await.expect("it answers") {
        SetAttempt::Granted { tokens, .. } => format!("{} granted", tokens.len()),
        SetAttempt::Busy { at, queued, .. } => format!("busy at {at}, queued: {queued}"),
        other => panic!("{other:?}"),
    }
}

/// Compares overlapping sets of up to three keys.
async fn compare_sets(store: &impl Backend) {
    let mut random = StdRng::seed_from_u64(12);
    let (mut compared, mut granted, mut refused) = (0, 0, 0);
    let began = Instant::now();
    while compared < COMPARED / 2 {
        assert!(began.elapsed() < Duration::from_mins(3), "only {compared} runs were fast enough");
        let prefix = format!("s{}", random.random::<u64>());
        let sets: Vec<Vec<Claim>> = (0..5)
            .map(|number| {
                let kind = claim(&mut random, "", number);
                let keys = (0..3).filter(|_| random.random_bool(0.7)).map(|key| {
                    let claim = Claim::new(format!("{prefix}:{key}").into(), LONG);
                    let claim = claim.with_mode(kind.mode).with_fair(kind.fair);
                    claim.with_wait_left(kind.wait_left).with_client_info(kind.client_info.clone())
                });
                keys.collect()
            })
            .filter(|claims: &Vec<Claim>| !claims.is_empty())
            .collect();
        let model = Memory::new();
        let mut asked = Vec::new();
        let began = Instant::now();
        for _ in 0..12 {
            let Some(claims) = sets.get(random.random_range(0..5)) else { continue };
            if random.random_bool(0.7) {
                let (expected, answer) =
                    (ask_all(&model, claims).await, ask_all(store, claims).await);
                *(if expected.contains("granted") { &mut granted } else { &mut refused }) += 1;
                asked.push((claims.clone(), expected, answer));
            } else {
                for claim in claims {
                    ask(&model, claim, Request::Release).await;
                    ask(store, claim, Request::Release).await;
                }
            }
        }
        let (expected, listed) = (seen(&model, &prefix).await, seen(store, &prefix).await);
        if began.elapsed() < QUICK {
            let alike = asked.iter().all(|(_, expected, answer)| expected == answer);
            assert!(alike, "{} differs from memory:\n{asked:#?}", store.kind());
            assert_eq!(
                listed,
                expected,
                "{} lists other holders and waiters than memory",
                store.kind()
            );
            compared += 1;
        }
    }
    assert!(granted > 50 && refused > 50, "{granted} were granted, {refused} refused");
}

fn claim(random: &mut StdRng, key: &str, number: u32) -> Claim {
    let mode = match random.random_range(0..6) {
        0 | 1 => Mode::Exclusive,
        2 | 3 => Mode::Shared,
        _ => Mode::Permits(NonZeroU32::new(random.random_range(2..4)).expect("two or three")),
    };
    let wait_left = if random.random_bool(0.8) { LONG } else { Duration::ZERO };
    let claim = Claim::new(key.into(), LONG).with_mode(mode);
    let claim = claim.with_client_info(ClientInfo::new(format!("number {number}")));
    claim.with_fair(random.random_bool(0.4)).with_wait_left(wait_left)
}

/// The answer without what differs where plain claims wait in a line, which exists only in Redis.
fn beside_a_line(answer: Answer, claim: &Claim) -> Answer {
    match answer {
        Answer::Busy { .. } if claim.is_plain() => Answer::Busy { queued: false },
        other => other,
    }
}

/// Those who do not wait in a line.
fn outside_a_line(mut seen: Vec<String>, claims: &[Claim]) -> Vec<String> {
    let plain = claims.iter().filter(|claim| claim.is_plain());
    let in_line: Vec<_> = plain.map(|claim| format!("waits {:?} ", Some(claim.owner))).collect();
    seen.retain(|one| !in_line.iter().any(|owner| one.starts_with(owner)));
    seen
}

async fn compare(store: &impl Backend) {
    let mut random = StdRng::seed_from_u64(11);
    let (mut compared, mut answers) = (0, [0_u32; 5]);
    let began = Instant::now();
    while compared < COMPARED {
        assert!(began.elapsed() < Duration::from_mins(3), "only {compared} runs were fast enough");
        let key = format!("k{}", random.random::<u64>());
        let claims: Vec<_> = (0..6).map(|number| claim(&mut random, &key, number)).collect();
        let model = Memory::new();
        let mut asked = Vec::new();
        let began = Instant::now();
        let mut all_alike = true;
        for _ in 0..24 {
            let claim = &claims[random.random_range(0..claims.len())];
            let request = match random.random_range(0..32) {
                0..19 => Request::Acquire,
                19..23 => Request::Renew,
                23 => Request::Revoke,
                _ => Request::Release,
            };
            let expected = beside_a_line(ask(&model, claim, request).await, claim);
            let answer = beside_a_line(ask(store, claim, request).await, claim);
            all_alike &= answer == expected;
            asked.push((request, claim.owner, claim.mode, claim.fair, expected, answer));
            answers[match expected {
                Answer::Granted => 0,
                Answer::Busy { queued: true } => 1,
                Answer::Busy { queued: false } => 2,
                Answer::Held(true) => 3,
                Answer::Held(false) => 4,
            }] += 1;
        }
        let expected = outside_a_line(seen(&model, &key).await, &claims);
        let listed = outside_a_line(seen(store, &key).await, &claims);
        if began.elapsed() < QUICK {
            assert_eq!(
                listed,
                expected,
                "{} lists other holders and waiters than memory",
                store.kind()
            );
            assert!(all_alike, "{} differs from memory:\n{asked:#?}", store.kind());
            compared += 1;
        }
    }
    assert!(answers.iter().all(|&count| count > 100), "some answers were rare: {answers:?}");
}
