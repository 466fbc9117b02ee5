//! Stored data may have been written by another version of this crate, or by something else. Either it is
//! readable, or nobody is granted the lock beside it.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use dlock_runtime::backend::{
    Attempt, Backend, Claim, Mode, MySql, Postgres, Redis, Release, Released, Renewal, Sqlite,
};
use dlock_runtime::{BackendError, OwnerId};
use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer};
use dlock_tests::trials::Trials;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};

use super::steps::sqlite_file;

const TTL: Duration = Duration::from_secs(30);

type Writing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
type Reading<'a> = Pin<Box<dyn Future<Output = String> + Send + 'a>>;

/// A store whose raw data the tests can write.
trait Open: Sync {
    type Store: Backend;

    fn store(&self) -> &Self::Store;

    /// Writes the group of the key `k`, valid for a minute.
    fn group<'a>(&'a self, text: &'a str) -> Writing<'a>;

    /// The stored group of the key `k`.
    fn stored_group(&self) -> Reading<'_>;

    /// Writes an exclusive owner of the key `k`, valid for a minute.
    fn owner<'a>(&'a self, owner: &'a str) -> Writing<'a>;

    /// Expires everything that is stored.
    fn age(&self) -> Writing<'_>;
}

pub(super) fn add(trials: &mut Trials) {
    macro_rules! on_each {
        ($($test:ident),* $(,)?) => { $(
            let name = |store| format!("{store}_{}", stringify!($test));
            trials.add(name("sqlite"), || async { $test(&File::new().await).await });
            trials.needs("redis-server", name("redis"), || async { $test(&OnRedis::new().await).await });
            trials.needs("postgres", name("postgres"), || async { $test(&OnPostgres::new().await).await });
            trials.needs("mariadbd", name("mysql"), || async { $test(&OnMySql::new().await).await });
        )* };
    }
    on_each!(
        a_group_without_a_version_is_read,
        nobody_enters_beside_an_unreadable_group,
        a_hold_in_an_unreadable_group_is_not_reported_lost,
        an_operator_sees_and_releases_an_unreadable_group,
        stored_text_states_its_version,
        an_unknown_owner_excludes_others_and_can_be_released,
    );
}

/// The current time in microseconds.
fn now() -> u128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("a date").as_micros()
}

fn claim(mode: Mode) -> Claim {
    Claim::new("k".into(), TTL).with_mode(mode)
}

fn claims() -> [Claim; 4] {
    let fair = claim(Mode::Exclusive).with_fair(true).with_wait_left(TTL);
    let permits = Mode::Permits(9.try_into().expect("not zero"));
    [claim(Mode::Exclusive), claim(Mode::Shared), claim(permits), fair]
}

fn is_granted(answer: &Result<Attempt, BackendError>) -> bool {
    matches!(answer, Ok(Attempt::Granted { .. }))
}

/// A reader as the previous version stored it, without a version.
fn reader(owner: OwnerId) -> String {
    format!("g {owner} s 7 {} host,1,1,shop::price", now() + 60_000_000)
}

/// Groups that this version cannot interpret.
fn unreadable() -> Vec<String> {
    let (now, end, owner) = (now(), now() + 60_000_000, OwnerId::random());
    let reader = reader(owner);
    vec![
        format!("{now}|{reader} another"),
        format!("v2|{now}|{reader}"),
        format!("v2|{reader}"),
        "v2".to_owned(),
        format!("v1|{now}|{reader} another"),
        format!("v1|{now}|{reader}|z {owner}"),
        format!("{now}|g {owner} q 7 {end} -"),
        format!("{now}|g {owner} s 7 soon -"),
        format!("{now}|g somebody,else s 7 {end} -"),
        format!("{now}|w {owner} x f {end} - 5"),
        format!("{now}|{reader}|"),
        "nonsense".to_owned(),
        String::new(),
    ]
}

async fn a_group_without_a_version_is_read(open: &impl Open) {
    let store = open.store();
    let owner = OwnerId::random();
    open.group(&format!("{}|{}", now(), reader(owner))).await;
    let holder = store.inspect(&"k".into()).await.expect("it answers").expect("somebody");
    assert_eq!((holder.owner, holder.mode), (Some(owner), Mode::Shared));
    let alone = store.try_acquire(&claim(Mode::Exclusive)).await;
    assert!(matches!(alone, Ok(Attempt::Busy { .. })), "{alone:?}");
    let beside = store.try_acquire(&claim(Mode::Shared)).await;
    assert!(is_granted(&beside), "{beside:?}");
    let mut theirs = claim(Mode::Shared);
    theirs.owner = owner;
    let renewed = store.renew(&theirs).await;
    assert!(matches!(renewed, Ok(Renewal::Renewed { .. })), "{renewed:?}");
    let released = store.release(&theirs, Release::default()).await;
    assert!(matches!(released, Ok(Released::Released)), "{released:?}");
}

async fn nobody_enters_beside_an_unreadable_group(open: &impl Open) {
    let store = open.store();
    for group in unreadable() {
        open.group(&group).await;
        for claim in claims() {
            let answer = store.try_acquire(&claim).await;
            let kind = store.kind();
            assert!(!is_granted(&answer), "{kind} grants {claim:?} beside `{group}`");
            let message = answer.as_ref().map_err(ToString::to_string);
            assert!(
                matches!(&message, Err(message) if message.contains("another version")),
                "{kind} beside `{group}`: {answer:?}"
            );
            let set = [claim.clone(), Claim::new("l".into(), TTL).with_mode(claim.mode)];
            let answer = store.try_acquire_set(&set).await;
            assert!(answer.is_err(), "{kind} grants a set beside `{group}`");
        }
        // Once expired, it no longer blocks anybody.
        open.age().await;
        for claim in claims() {
            let answer = store.try_acquire(&claim).await;
            assert!(is_granted(&answer), "{} after `{group}`: {answer:?}", store.kind());
            store.release(&claim, Release::default()).await.expect("it answers");
        }
    }
}

async fn a_hold_in_an_unreadable_group_is_not_reported_lost(open: &impl Open) {
    let store = open.store();
    let mine = claim(Mode::Shared);
    let granted = store.try_acquire(&mine).await;
    assert!(is_granted(&granted), "{granted:?}");
    open.group(&format!("v2|{}|{} of=2", now(), reader(mine.owner))).await;
    let renewed = store.renew(&mine).await;
    assert!(renewed.is_err(), "{renewed:?}");
    let released = store.release(&mine, Release::default()).await;
    assert!(released.is_err(), "{released:?}");
    // It is still stored for versions that can read it.
    let answer = store.try_acquire(&claim(Mode::Exclusive)).await;
    assert!(answer.is_err(), "{answer:?}");
}

async fn an_operator_sees_and_releases_an_unreadable_group(open: &impl Open) {
    let store = open.store();
    for group in unreadable() {
        open.group(&group).await;
        let holder = store.inspect(&"k".into()).await.expect("it answers").expect("somebody");
        assert_eq!(holder.mode, Mode::Exclusive);
        assert!(holder.owner.is_none() && !holder.expires_in.is_zero(), "{holder:?}");
        let listed = store.list("").await.expect("an unreadable group hides no other key");
        assert_eq!(listed.len(), 1, "{listed:?}");
        let message = store
            .revoke(&"k".into())
            .await
            .expect_err("an unreadable group cannot be revoked")
            .to_string();
        assert!(message.contains("another version"), "{message}");
        assert!(store.force_release(&"k".into()).await.expect("it answers"), "`{group}`");
        let mine = claim(Mode::Exclusive);
        let answer = store.try_acquire(&mine).await;
        assert!(is_granted(&answer), "{answer:?}");
        store.release(&mine, Release::default()).await.expect("it answers");
    }
}

/// The version lets a later version read the text, and lets this one recognize text it cannot read.
async fn stored_text_states_its_version(open: &impl Open) {
    let store = open.store();
    let mine = claim(Mode::Shared);
    assert!(is_granted(&store.try_acquire(&mine).await));
    let stored = open.stored_group().await;
    let version = stored.strip_prefix("v1|").expect(&stored);
    assert!(version.starts_with(|digit: char| digit.is_ascii_digit()), "{stored}");
    assert!(stored.contains(&format!("|g {} s ", mine.owner)), "{stored}");
    // A future version.
    open.group("v999").await;
    let message = store.renew(&mine).await.expect_err("unreadable").to_string();
    assert!(message.contains("`v999`") && message.contains("`v1`"), "{message}");
}

async fn an_unknown_owner_excludes_others_and_can_be_released(open: &impl Open) {
    let store = open.store();
    for owner in ["maintenance", "2:another form of owner"] {
        open.owner(owner).await;
        for claim in claims() {
            let answer = store.try_acquire(&claim).await;
            let busy = matches!(answer, Ok(Attempt::Busy { .. }));
            assert!(busy, "{} with the owner `{owner}`: {answer:?}", store.kind());
            store.release(&claim, Release::default()).await.expect("it answers");
        }
        let holder = store.inspect(&"k".into()).await.expect("it answers").expect("somebody");
        assert!(!holder.revoked, "{holder:?}");
        let revoked = store.revoke(&"k".into()).await;
        assert!(matches!(revoked, Ok(true)), "{} with `{owner}`: {revoked:?}", store.kind());
        let holder = store.inspect(&"k".into()).await.expect("it answers").expect("still held");
        assert!(holder.revoked, "{holder:?}");
        let ended = store.force_release(&"k".into()).await;
        assert!(matches!(ended, Ok(true)), "{} with `{owner}`: {ended:?}", store.kind());
        let mine = claim(Mode::Exclusive);
        let answer = store.try_acquire(&mine).await;
        assert!(is_granted(&answer), "{answer:?}");
        store.release(&mine, Release::default()).await.expect("it answers");
    }
}

struct File {
    store: Sqlite,
    url: String,
    _folder: tempfile::TempDir,
}

impl File {
    async fn new() -> Self {
        let (folder, url) = sqlite_file();
        Self { store: Sqlite::connect(&url).await.expect("a file"), url, _folder: folder }
    }

    async fn execute(&self, statement: String) {
        let mut connection = SqliteConnection::connect(&self.url).await.expect("a file");
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        statement.execute(&mut connection).await.expect("the statement");
    }
}

impl Open for File {
    type Store = Sqlite;

    fn store(&self) -> &Sqlite {
        &self.store
    }

    fn group<'a>(&'a self, text: &'a str) -> Writing<'a> {
        let end = now() + 60_000_000;
        Box::pin(self.execute(format!(
            "INSERT INTO dlock_locks (key, owner, token, expires_us, lock_group, group_until_us)
             VALUES ('k', x'', 7, 0, '{text}', {end})
             ON CONFLICT DO UPDATE SET lock_group = '{text}', group_until_us = {end}"
        )))
    }

    fn stored_group(&self) -> Reading<'_> {
        Box::pin(async {
            let mut connection = SqliteConnection::connect(&self.url).await.expect("it runs");
            let group = sqlx::query_scalar("SELECT lock_group FROM dlock_locks WHERE key = 'k'");
            group.fetch_one(&mut connection).await.expect("a group")
        })
    }

    fn owner<'a>(&'a self, owner: &'a str) -> Writing<'a> {
        let end = now() + 60_000_000;
        Box::pin(self.execute(format!(
            "INSERT OR REPLACE INTO dlock_locks (key, owner, token, expires_us)
             VALUES ('k', CAST('{owner}' AS BLOB), 7, {end})"
        )))
    }

    fn age(&self) -> Writing<'_> {
        let age = "UPDATE dlock_locks SET expires_us = 0, group_until_us = 0";
        Box::pin(self.execute(age.to_owned()))
    }
}

struct OnPostgres {
    store: Postgres,
    server: PostgresServer,
}

impl OnPostgres {
    async fn new() -> Self {
        let server = PostgresServer::start();
        Self { store: Postgres::connect(&server.url()).await.expect("it runs"), server }
    }

    async fn execute(&self, statement: String) {
        let mut connection = PgConnection::connect(&self.server.url()).await.expect("it runs");
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        statement.execute(&mut connection).await.expect("the statement");
    }
}

impl Open for OnPostgres {
    type Store = Postgres;

    fn store(&self) -> &Postgres {
        &self.store
    }

    fn group<'a>(&'a self, text: &'a str) -> Writing<'a> {
        Box::pin(self.execute(format!(
            "INSERT INTO dlock_leases (lock_key, token, expires_at, lock_group, group_until)
             VALUES ('k', 7, now(), '{text}', now() + interval '1 minute')
             ON CONFLICT (lock_key) DO UPDATE SET
                lock_group = excluded.lock_group, group_until = excluded.group_until"
        )))
    }

    fn stored_group(&self) -> Reading<'_> {
        Box::pin(async {
            let mut connection = PgConnection::connect(&self.server.url()).await.expect("it runs");
            let group =
                sqlx::query_scalar("SELECT lock_group FROM dlock_leases WHERE lock_key = 'k'");
            group.fetch_one(&mut connection).await.expect("a group")
        })
    }

    fn owner<'a>(&'a self, owner: &'a str) -> Writing<'a> {
        Box::pin(self.execute(format!(
            "INSERT INTO dlock_leases (lock_key, owner, token, expires_at)
             VALUES ('k', '{owner}', 7, now() + interval '1 minute')
             ON CONFLICT (lock_key) DO UPDATE SET
                owner = excluded.owner, expires_at = excluded.expires_at"
        )))
    }

    fn age(&self) -> Writing<'_> {
        let age = "UPDATE dlock_leases SET expires_at = now(), group_until = now()";
        Box::pin(self.execute(age.to_owned()))
    }
}

struct OnMySql {
    store: MySql,
    server: MariaDbServer,
}

impl OnMySql {
    async fn new() -> Self {
        let server = MariaDbServer::start();
        Self { store: MySql::connect(&server.url()).await.expect("it runs"), server }
    }

    async fn execute(&self, statement: String) {
        let mut connection = MySqlConnection::connect(&self.server.url()).await.expect("it runs");
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        statement.execute(&mut connection).await.expect("the statement");
    }
}

impl Open for OnMySql {
    type Store = MySql;

    fn store(&self) -> &MySql {
        &self.store
    }

    fn group<'a>(&'a self, text: &'a str) -> Writing<'a> {
        Box::pin(self.execute(format!(
            "INSERT INTO dlock_leases (lock_key, token, expires_at, gone, gone_before, gone_since, lock_group, group_until)
             VALUES ('k', 7, UTC_TIMESTAMP(6), '', '', '1970-01-01', '{text}', UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE)
             ON DUPLICATE KEY UPDATE lock_group = VALUES(lock_group), group_until = VALUES(group_until)"
        )))
    }

    fn stored_group(&self) -> Reading<'_> {
        Box::pin(async {
            let mut connection =
                MySqlConnection::connect(&self.server.url()).await.expect("it runs");
            let group =
                sqlx::query_scalar("SELECT lock_group FROM dlock_leases WHERE lock_key = 'k'");
            group.fetch_one(&mut connection).await.expect("a group")
        })
    }

    fn owner<'a>(&'a self, owner: &'a str) -> Writing<'a> {
        Box::pin(self.execute(format!(
            "INSERT INTO dlock_leases (lock_key, owner, token, expires_at, gone, gone_before, gone_since, group_until)
             VALUES ('k', '{owner}', 7, UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE, '', '', '1970-01-01', '1970-01-01')
             ON DUPLICATE KEY UPDATE owner = VALUES(owner), expires_at = VALUES(expires_at)"
        )))
    }

    fn age(&self) -> Writing<'_> {
        let age =
            "UPDATE dlock_leases SET expires_at = UTC_TIMESTAMP(6), group_until = UTC_TIMESTAMP(6)";
        Box::pin(self.execute(age.to_owned()))
    }
}

struct OnRedis {
    store: Redis,
    connection: redis::aio::MultiplexedConnection,
    _server: RedisServer,
}

impl OnRedis {
    async fn new() -> Self {
        let server = RedisServer::start();
        let store = Redis::connect(&server.url()).await.expect("it runs");
        let client = redis::Client::open(server.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("it runs");
        Self { store, connection, _server: server }
    }

    async fn set(&self, name: &str, value: &str) {
        let mut set = redis::cmd("SET");
        set.arg(name).arg(value).arg("PX").arg(60_000);
        let mut connection = self.connection.clone();
        set.exec_async(&mut connection).await.expect("it answers");
    }
}

impl Open for OnRedis {
    type Store = Redis;

    fn store(&self) -> &Redis {
        &self.store
    }

    fn group<'a>(&'a self, text: &'a str) -> Writing<'a> {
        Box::pin(self.set("dlock:{k}:group", text))
    }

    fn stored_group(&self) -> Reading<'_> {
        Box::pin(async {
            let mut get = redis::cmd("GET");
            get.arg("dlock:{k}:group");
            get.query_async(&mut self.connection.clone()).await.expect("a group")
        })
    }

    fn owner<'a>(&'a self, owner: &'a str) -> Writing<'a> {
        Box::pin(self.set("dlock:{k}", owner))
    }

    fn age(&self) -> Writing<'_> {
        Box::pin(async {
            let mut delete = redis::cmd("DEL");
            delete.arg("dlock:{k}").arg("dlock:{k}:group");
            let mut connection = self.connection.clone();
            delete.exec_async(&mut connection).await.expect("it answers");
        })
    }
}
