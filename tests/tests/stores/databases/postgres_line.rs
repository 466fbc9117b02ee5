//! What is particular to the line of PostgreSQL: its table, its statements, and processes that do not use it.

use std::time::Duration;

use dlock_runtime::backend::{
    Attempt, Backend, Claim, Mode, Postgres as Leases, Release, Released, Renewal,
};
use dlock_runtime::{FencingToken, Handover, Registry, Wait};
use dlock_tests::servers::PostgresServer;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, PgConnection, Row};

use super::both::Database as _;
use super::postgres::Postgres;
use crate::hand_over::{KEY, Server, Waiter, ask, claim, held, release};
use crate::steps::{self, acquire, registry};

impl Server for Postgres {
    type Backend = Leases;

    fn start() -> Self {
        Self(PostgresServer::start())
    }

    async fn connect(&self) -> Leases {
        self.backend().await
    }

    async fn expire(&self) {
        let expire = "UPDATE dlock_leases SET expires_at = clock_timestamp() WHERE lock_key = 'k'";
        self.ask(expire).await;
    }

    async fn forget(&self) {
        self.ask("DELETE FROM dlock_leases_line; DELETE FROM dlock_leases WHERE lock_key = 'k'")
            .await;
    }
}

async fn connect(server: &Postgres) -> Leases {
    server.connect().await
}

impl Postgres {
    async fn expire_reservation(&self) {
        let expire = "UPDATE dlock_leases SET expires_at = clock_timestamp() WHERE owner LIKE '>%'";
        self.ask(expire).await;
    }
}

async fn in_line(server: &Postgres) -> i64 {
    server.ask("SELECT count(*) FROM dlock_leases_line").await.expect("a number")
}

/// Tasks of several processes that want one key, without passing leases inside a process.
pub async fn a_contended_cycle_takes_three_statements() {
    const PROCESSES: usize = 4;
    const CYCLES: i64 = 400;
    let server = <Postgres as Server>::start();
    let registries = [
        registry(connect(&server).await),
        registry(connect(&server).await),
        registry(connect(&server).await),
        registry(connect(&server).await),
    ];
    acquire(&registries[0], "warm").await.release().await.expect("held");
    let before = server.statements().await;
    let task = async |registry: &Registry| {
        let lock = registry.lock(KEY).wait(Wait::Forever).handover(Handover::OFF);
        for _ in 0..CYCLES / 16 {
            lock.clone().acquire().await.expect("the lock").release().await.expect("held");
        }
    };
    join_all(registries.iter().flat_map(|one| [one; PROCESSES]).map(task)).await;
    let statements = server.statements().await - before;
    assert!(statements <= CYCLES * 7 / 2, "{statements} statements for {CYCLES} cycles");
    assert_eq!(in_line(&server).await, 0);
}

pub async fn a_release_without_the_line_notifies_all() {
    let server = <Postgres as Server>::start();
    server.make_shop().await;
    let connected = connect(&server).await;
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases TO shop").await;
    drop(connected);
    let of_shop = async || Leases::connect(&server.url_of_shop()).await.expect("the table");
    let of_owner = async || connect(&server).await;
    // Neither has it, one of them, and the other.
    steps::hand_over_without_polling(&[registry(of_shop().await), registry(of_shop().await)]).await;
    steps::hand_over_without_polling(&[registry(of_shop().await), registry(of_owner().await)])
        .await;
    // It is taken from a process in use.
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases_line TO shop").await;
    let registries = [registry(of_shop().await), registry(of_owner().await)];
    steps::hand_over_without_polling(&registries).await;
    server.ask("REVOKE INSERT, DELETE ON dlock_leases_line FROM shop").await;
    steps::hand_over_without_polling(&registries).await;
}

pub async fn those_who_only_poll_are_not_passed_over() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let mut waiter = Waiter::new(&server).await;
    // What a process does that receives no notifications, before it polls.
    server.ask("UPDATE dlock_leases SET wanted = true WHERE released = -1").await;
    release(&first, &holder).await;
    assert!(ask(&first, &mut claim()).await.is_some(), "free for those who come first");
    waiter.watch.changed().await;
    assert_eq!(waiter.ask().await, None);
}

/// The same for the release of a process that was in line itself.
pub async fn a_hand_over_ends_where_others_want_the_lock() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let mut one = Waiter::new(&server).await;
    release(&first, &holder).await;
    one.watch.changed().await;
    one.ask().await.expect("reserved for it");
    let mut next = Waiter::new(&server).await;
    server.ask("UPDATE dlock_leases SET wanted = true WHERE released = -1").await;
    one.release().await;
    assert!(ask(&first, &mut claim()).await.is_some(), "free for those who come first");
    next.watch.changed().await;
    assert_eq!(next.ask().await, None);
}

/// A release does not wait for a place that somebody's transaction keeps locked.
pub async fn a_place_that_is_locked_is_passed_over() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let mut one = Waiter::new(&server).await;
    let mut next = Waiter::new(&server).await;
    let owner = one.claim.owner;
    let locked = server
        .lock(&format!("SELECT 1 FROM dlock_leases_line WHERE owner = '{owner}' FOR UPDATE"))
        .await;
    release(&first, &holder).await;
    next.watch.changed().await;
    next.ask().await.expect("reserved for it");
    drop(locked);
    release(&next.backend, &next.claim).await;
    one.watch.changed().await;
    one.ask().await.expect("reserved for it");
}

pub async fn a_reservation_is_not_renewed_and_shows_a_waiter() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let mut one = Waiter::new(&server).await;
    let next = Waiter::new(&server).await;
    release(&first, &holder).await;
    for claim in [&holder, &one.claim] {
        let renewed = first.renew(claim).await.expect("an answer");
        assert_eq!(renewed, Renewal::NotHeld);
    }
    assert!(!first.revoke(&KEY.into()).await.expect("an answer"), "nobody holds it");
    assert!(first.inspect(&KEY.into()).await.expect("an answer").is_none());
    let listed = first.list(KEY).await.expect("an answer");
    let waiters: Vec<_> = listed[0].waiters.iter().map(|waiter| waiter.owner).collect();
    assert_eq!(waiters, [Some(one.claim.owner), Some(next.claim.owner)]);
    assert!(one.ask().await.is_some());
    let left = next.backend.release(&next.claim, Release::default()).await.expect("an answer");
    assert_eq!(left, Released::NotHeld);
    assert_eq!(in_line(&server).await, 0);
    one.release().await;
    assert!(ask(&first, &mut claim()).await.is_some());
}

pub async fn places_of_the_dead_are_swept() {
    let server = <Postgres as Server>::start();
    let (first, _holder) = held(&server).await;
    let waiter = Waiter::new(&server).await;
    server.ask("UPDATE dlock_leases_line SET due = due - interval '3 minutes'").await;
    first.delete_idle_rows().await.expect("a sweep");
    assert_eq!(in_line(&server).await, 0);
    drop(waiter);
}

/// Waits until somebody requests that the release of the key be announced to all.
async fn until_wanted(server: &Postgres) {
    while server.ask("SELECT COUNT(*) FROM dlock_leases WHERE wanted").await == Some(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn sets_that_wait_are_not_passed_over() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let waiter = Waiter::new(&server).await;
    let sets = registry(connect(&server).await);
    let set = sets.lock_all([KEY, "j"]).wait(Wait::Forever).acquire();
    let set = tokio::spawn(set);
    until_wanted(&server).await;
    drop(waiter);
    release(&first, &holder).await;
    set.await.expect("no panic").expect("the locks").release().await.expect("held");
}

/// A reader that lines up behind a writer of its own process.
pub async fn readers_behind_a_writer_in_line_are_not_passed_over() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let process = registry(connect(&server).await);
    let lock = process.lock(KEY).wait(Wait::Forever);
    let writer = tokio::spawn(lock.clone().acquire());
    while in_line(&server).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reader = tokio::spawn(lock.mode(Mode::Shared).acquire());
    let mut next = Waiter::new(&server).await;
    release(&first, &holder).await;
    writer.await.expect("no panic").expect("the lock").release().await.expect("held");
    next.watch.changed().await;
    next.ask().await.expect("reserved for it");
    until_wanted(&server).await;
    next.release().await;
    reader.await.expect("no panic").expect("the lock").release().await.expect("held");
}

pub async fn a_fair_caller_does_not_freeze_a_reservation() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let mut waiter = Waiter::new(&server).await;
    release(&first, &holder).await;
    let mut fair = claim().with_fair(true);
    assert_eq!(ask(&first, &mut fair).await, None, "reserved for the other one");
    waiter.watch.changed().await;
    // The queue of fair callers goes first.
    assert_eq!(waiter.ask().await, None);
    assert!(ask(&first, &mut fair).await.is_some(), "the reservation is over");
}

/// The place that a request makes after a release has deleted it, because it waited for that release.
pub async fn a_place_that_comes_back_ends_with_the_grant() {
    let server = <Postgres as Server>::start();
    let (first, holder) = held(&server).await;
    let mut waiter = Waiter::new(&server).await;
    let copy = "CREATE TABLE copied AS SELECT * FROM dlock_leases_line";
    server.ask(copy).await;
    release(&first, &holder).await;
    assert_eq!(in_line(&server).await, 0);
    server.ask("INSERT INTO dlock_leases_line SELECT * FROM copied").await;
    waiter.watch.changed().await;
    waiter.ask().await.expect("reserved for it");
    assert_eq!(in_line(&server).await, 0);
}

pub async fn a_line_that_disappears_is_done_without() {
    let server = <Postgres as Server>::start();
    let registries = [registry(connect(&server).await), registry(connect(&server).await)];
    steps::hand_over_without_polling(&registries).await;
    server.ask("DROP TABLE dlock_leases_line").await;
    // More connections than were open.
    let lock = |number| registries[0].lock(format!("k{number}")).run(std::future::ready(()));
    for _ in 0..3 {
        for done in join_all((0..50).map(lock)).await {
            done.expect("the lock");
        }
    }
    steps::hand_over_without_polling(&registries).await;
    assert_eq!(in_line_table(&server, "dlock_leases_line").await, 0);
}

async fn in_line_table(server: &Postgres, table: &str) -> i64 {
    let exists = format!("SELECT (to_regclass('{table}') IS NOT NULL)::int::bigint");
    server.ask(&exists).await.expect("a number")
}

/// Tables whose names happen to be those of a line.
pub async fn a_table_of_another_kind_is_not_taken_for_a_line() {
    let server = <Postgres as Server>::start();
    let longest = "a23456789_123456789_123456789_123456789_123456789_123456789_123";
    for table in [longest, "jobs"] {
        server.ask("CREATE TABLE IF NOT EXISTS jobs_line (number int)").await;
        let connect = async || {
            let leases = Leases::builder().table(table).connect(&server.0.url()).await;
            registry(leases.expect("the table"))
        };
        steps::hand_over_without_polling(&[connect().await, connect().await]).await;
    }
}

/// Processes with different search paths that share the leases share the line.
pub async fn the_line_is_in_the_schema_of_the_leases() {
    let server = <Postgres as Server>::start();
    let table = include_str!("../../../../dlock-runtime/src/stores/postgres/leases.sql");
    server.ask(table).await;
    server.ask("CREATE SCHEMA other").await;
    let url = format!("{}?options[search_path]=other,public", server.0.url());
    let first = registry(Leases::connect(&url).await.expect("the table"));
    assert_eq!(in_line_table(&server, "other.dlock_leases_line").await, 0);
    assert_eq!(in_line_table(&server, "public.dlock_leases_line").await, 1);
    let other = registry(connect(&server).await);
    steps::hand_over_without_polling(&[first, other]).await;
}

/// A process of the version before, with the statements that it sent.
struct Before(PgConnection);

impl Before {
    async fn new(server: &Postgres) -> Self {
        Self(PgConnection::connect(&server.0.url()).await.expect("the server runs"))
    }

    /// The token, if granted; of a block, the first and the last.
    async fn acquire(&mut self, claim: &Claim) -> Option<(u64, u64)> {
        let more = i16::try_from(claim.token_block - 1).expect("a small block");
        let row = sqlx::query(include_str!("before/acquire.sql")).bind("k");
        let row = row.bind(claim.owner.to_string()).bind(30_000_000_i64).bind("host,1,1,before");
        let row = row.bind(more).fetch_optional(&mut self.0).await.expect("an answer")?;
        let last = row.get::<Option<i64>, _>(1)?.unsigned_abs();
        Some((last - u64::from(more.unsigned_abs()), last))
    }

    async fn release(&mut self, claim: &Claim) -> bool {
        let released = sqlx::query(include_str!("before/release.sql")).bind("k");
        let released = released.bind(claim.owner.to_string());
        released.fetch_optional(&mut self.0).await.expect("an answer").is_some()
    }

    /// What its waiters send before they sleep.
    async fn want(&mut self) {
        let want = sqlx::query(include_str!("before/want.sql")).bind("k");
        want.fetch_all(&mut self.0).await.expect("an answer");
    }
}

/// In random schedules of two processes in line and one of the version before, no two hold, and tokens grow.
pub async fn the_version_before_and_this_one_never_both_hold() {
    let server = <Postgres as Server>::start();
    let mut before = Before::new(&server).await;
    let processes = [connect(&server).await, connect(&server).await];
    let mut watches = vec![];
    for process in &processes {
        watches.push(process.watch_for(&claim()).await.expect("a subscription"));
    }
    let mut rng = StdRng::seed_from_u64(7);
    let mut claims: Vec<Claim> = (0..6).map(|_| claim()).collect();
    let (mut holder, mut last) = (None::<usize>, 0);
    let mut grants = [0; 2];
    for step in 0..3_000 {
        let at = rng.random_range(0..claims.len());
        let is_before = at % 3 == 2;
        let shown = format!("step {step}: {at}, while {holder:?} holds");
        match rng.random_range(0..10) {
            0..6 if holder != Some(at) => {
                claims[at].token_block = [1, 1, 7][rng.random_range(0..3)];
                let granted = if is_before {
                    before.acquire(&claims[at]).await
                } else {
                    match processes[at % 3].try_acquire(&claims[at]).await.expect("an answer") {
                        Attempt::Granted { token, token_block, .. } => {
                            Some((token.get(), token.get() + u64::from(token_block) - 1))
                        }
                        _ => None,
                    }
                };
                if let Some((first, end)) = granted {
                    assert!(holder.is_none() && first > last, "{shown}: {first} after {last}");
                    claims[at].token = Some(FencingToken::new(end));
                    (holder, last) = (Some(at), end);
                    grants[usize::from(is_before)] += 1;
                }
            }
            6 if is_before => before.want().await,
            7 => server.expire_reservation().await,
            8.. => {
                let Some(at) = holder.take() else { continue };
                let is_released = if at % 3 == 2 {
                    before.release(&claims[at]).await
                } else {
                    let released = processes[at % 3].release(&claims[at], Release::default()).await;
                    released.expect("an answer") == Released::Released
                };
                assert!(is_released, "{shown}: its holder was not found");
                claims[at] = claim();
            }
            _ => {}
        }
    }
    assert!(grants.iter().all(|grants| *grants > 30), "{grants:?}");
}
