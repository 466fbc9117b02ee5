//! The model of a Redlock node and the scripts on a real server give the same answers to the same random
//! requests, whether this version sends them or the one before. What one request cannot read fails no other one.

#[path = "../../../dlock-runtime/src/lock_table/majority/model.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod model;

use dlock_tests::servers::RedisServer;
use dlock_tests::trials::Trials;
use model::{Answer, Asker, Node, Renewed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::{Connection, Script, ScriptInvocation, Value};

const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000 * MILLISECOND;
/// Far longer than the test takes, so nothing expires.
const LONG: u64 = 10_000 * SECOND;
/// How much later than this test the server may read its clock.
const SLACK: u64 = 60 * SECOND;
const TOLERANCE: u64 = 300 * SECOND;
/// The client info that is stored for operators. No step depends on it.
const CLIENT_INFO: &str = "host 1 0 test";

macro_rules! script {
    ($($file:literal),+) => {
        Script::new(concat!($(include_str!(concat!("../../../dlock-runtime/src/stores/", $file))),+))
    };
}

macro_rules! before {
    ($($file:literal),+) => {
        Script::new(concat!($(include_str!(concat!("redlock/before/", $file))),+))
    };
}

pub(super) fn add(trials: &mut Trials) {
    trials.needs("redis-server", "the_model_and_the_scripts_agree", || agree(&[]));
    trials.needs("redis-server", "they_agree_without_permission_for_mget", || agree(&["-mget"]));
    trials
        .needs("redis-server", "they_agree_without_permission_for_exists", || agree(&["-exists"]));
    trials.needs("redis-server", "they_agree_without_permission_for_both", || {
        agree(&["-mget", "-exists"])
    });
    trials.needs("redis-server", "what_cannot_be_read_fails_only_its_own_request", || async {
        let asked = tokio::task::spawn_blocking(unreadable_values);
        asked.await.expect("no panic");
    });
}

/// Whose scripts a client uses. Both may share the nodes while a new version is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Before,
    Now,
}

/// The scripts of a version.
struct Scripts {
    acquire: Script,
    raise: Script,
    renew: Script,
    release: Script,
}

impl Scripts {
    fn of(version: Version) -> Self {
        match version {
            Version::Before => Self {
                acquire: before!("clock.lua", "mark.lua", "last_token.lua", "acquire.lua"),
                raise: before!("clock.lua", "mark.lua", "last_token.lua", "raise.lua"),
                renew: before!("clock.lua", "mark.lua", "last_token.lua", "renew.lua"),
                release: before!("clock.lua", "mark.lua", "release.lua"),
            },
            Version::Now => Self {
                acquire: script!(
                    "redis/clock.lua",
                    "redlock/mark.lua",
                    "redlock/last_token.lua",
                    "redlock/acquire.lua"
                ),
                raise: script!(
                    "redis/clock.lua",
                    "redlock/mark.lua",
                    "redlock/last_token.lua",
                    "redlock/raise.lua"
                ),
                renew: script!(
                    "redis/clock.lua",
                    "redlock/mark.lua",
                    "redlock/last_token.lua",
                    "redlock/renew.lua"
                ),
                release: script!("redis/clock.lua", "redlock/mark.lua", "redlock/release.lua"),
            },
        }
    }
}

/// A server and the scripts that run on it.
struct Real {
    connection: Connection,
    /// Those of each version.
    scripts: [Scripts; 2],
    greet: Script,
    run: String,
}

impl Real {
    fn new(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).expect("a URL");
        Self {
            connection: client.get_connection().expect("the server runs"),
            scripts: [Version::Before, Version::Now].map(Scripts::of),
            greet: script!("redlock/greet.lua"),
            run: String::new(),
        }
    }

    /// The server's clock, in microseconds.
    fn clock(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) =
            redis::cmd("TIME").query(&mut self.connection).expect("TIME");
        seconds * SECOND + micros
    }

    fn greet(&mut self, quarantine: u64, found: bool) {
        let mut call = self.greet.prepare_invoke();
        call.key("mark").arg(quarantine / MILLISECOND).arg(if found { "found" } else { "enter" });
        let (run, ..): (String, i64, u64, u64) = call.invoke(&mut self.connection).expect("greet");
        self.run = run;
    }

    fn run_of(&self, asker: Asker) -> String {
        if asker.run == 1 { self.run.clone() } else { format!("other{}", asker.run) }
    }

    /// Asks for the lock in one call, with a proposal for each.
    fn acquire(&mut self, version: Version, asks: &[(Asker, u64)]) -> Vec<Answer> {
        let run = self.run_of(asks[0].0);
        let mut call = self.scripts[version as usize].acquire.prepare_invoke();
        call.key("mark");
        for (Asker { owner, .. }, _) in asks {
            let gone = format!("lock:gone:{owner}");
            match version {
                Version::Before => call.key("lock").key("token").key(gone),
                Version::Now => call.key("lock").key(gone).key("token"),
            };
        }
        call.arg(run);
        tolerance(version, &mut call);
        for (Asker { owner, round, .. }, proposed) in asks {
            match version {
                Version::Before => {
                    call.arg(owner).arg(LONG / MILLISECOND).arg(round).arg(proposed);
                    call.arg(TOLERANCE).arg(CLIENT_INFO);
                }
                Version::Now => {
                    call.arg(format!("{owner}:{proposed}:{round}:{CLIENT_INFO}"));
                    call.arg(proposed).arg(LONG / MILLISECOND);
                }
            }
        }
        let answers: Vec<Value> = call.invoke(&mut self.connection).expect("acquire");
        answers.into_iter().map(acquired).collect()
    }

    fn raise(&mut self, version: Version, asker: Asker, token: u64) -> bool {
        let run = self.run_of(asker);
        let mut call = self.scripts[version as usize].raise.prepare_invoke();
        call.key("mark").key("lock").key("token").arg(run);
        tolerance(version, &mut call);
        call.arg(asker.owner).arg(asker.round).arg(token);
        let [stored]: [bool; 1] = call.invoke(&mut self.connection).expect("raise");
        stored
    }

    fn renew(&mut self, version: Version, asker: Asker, token: u64) -> Renewed {
        let run = self.run_of(asker);
        let mut call = self.scripts[version as usize].renew.prepare_invoke();
        call.key("mark").key("lock").key("token").key(format!("lock:gone:{}", asker.owner));
        call.arg(run);
        tolerance(version, &mut call);
        call.arg(asker.owner).arg(LONG / MILLISECOND).arg(asker.round).arg(token);
        call.arg(CLIENT_INFO);
        match call.invoke::<[u8; 1]>(&mut self.connection).expect("renew") {
            [0] => Renewed::NotHeld,
            [1] => Renewed::Counts,
            _ => Renewed::Uncounted,
        }
    }

    /// Releases the lock in one call, with the tombstone of each.
    fn release(&mut self, version: Version, asks: &[(Asker, Option<bool>)]) -> Vec<bool> {
        let run = self.run_of(asks[0].0);
        let mut call = self.scripts[version as usize].release.prepare_invoke();
        call.key("mark");
        for (Asker { owner, .. }, _) in asks {
            call.key("lock");
            if version == Version::Before {
                call.key(format!("lock:gone:{owner}"));
            }
        }
        call.arg(run);
        tolerance(version, &mut call);
        for (Asker { owner, round, .. }, tombstone) in asks {
            let lasts = tombstone.map_or(0, |_| LONG / MILLISECOND);
            let how = if *tombstone == Some(true) { "always" } else { "missing" };
            call.arg(owner).arg(round);
            match version {
                Version::Before => call.arg(0).arg("").arg(lasts).arg(how),
                Version::Now => call.arg(format!("0:{lasts}:{how}")),
            };
        }
        let answers: Vec<u8> = call.invoke(&mut self.connection).expect("release");
        answers.into_iter().map(|answer| answer == 1).collect()
    }

    fn say(&mut self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let () = command.query(&mut self.connection).expect("a command");
    }
}

fn acquired(answer: Value) -> Answer {
    if let Value::Int(token) = answer {
        return Answer::Granted(token.unsigned_abs());
    }
    let (kind, number, owner): (u8, u64, String) =
        redis::from_redis_value(answer).expect("an answer");
    match kind {
        0 => {
            let owner = owner.parse().expect("an owner of this test");
            Answer::Busy { owner, left: number * MILLISECOND }
        }
        1 => Answer::Granted(number),
        2 => Answer::GivenUp,
        3 => Answer::Quarantined(number * MILLISECOND),
        _ => Answer::Unmarked,
    }
}

/// Adds the argument that the version before did not have.
fn tolerance(version: Version, call: &mut ScriptInvocation<'_>) {
    if version == Version::Now {
        call.arg(TOLERANCE);
    }
}

/// Whether two answers are equal, apart from the time that passed between them.
fn same(model: Answer, real: Answer) -> bool {
    let near = |one: u64, other: u64| one.abs_diff(other) <= SLACK;
    match (model, real) {
        (Answer::Busy { owner, left }, Answer::Busy { owner: other, left: rest }) => {
            owner == other && near(left, rest)
        }
        (Answer::Quarantined(left), Answer::Quarantined(rest)) => near(left, rest),
        // A rejected proposal is replaced by the node's own time.
        (Answer::Granted(token), Answer::Granted(other)) => near(token, other),
        (one, other) => one == other,
    }
}

/// Those who ask in one call, among them this one. They have asked for the same run.
fn several(rng: &mut StdRng, first: Asker) -> Vec<Asker> {
    let mut all = vec![first];
    while rng.random_bool(0.3) {
        let (owner, round) = (rng.random_range(1..4), rng.random_range(1..6));
        all.push(Asker { owner, round, ..first });
    }
    all
}

async fn agree(denied: &'static [&'static str]) {
    let compared = tokio::task::spawn_blocking(|| compare(denied));
    compared.await.expect("they agree");
}

/// Compares them on a server whose user may not execute some commands.
fn compare(denied: &[&str]) {
    let server = RedisServer::start();
    for denied in denied {
        assert!(server.cli(&["ACL", "SETUSER", "default", denied]).starts_with("OK"));
    }
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut real = Real::new(&server);
        real.say(&["FLUSHALL"]);
        let mut model = Node::new(real.clock(), 1);
        let mut answers = vec![];
        for step in 0..60 {
            let at = format!("schedule {seed}, step {step}, after {answers:?}");
            let asker = Asker {
                owner: rng.random_range(1..4),
                round: rng.random_range(1..6),
                run: if rng.random_bool(0.9) { 1 } else { 2 },
            };
            model.now = real.clock();
            let token = model.now + rng.random_range(0..TOLERANCE - SLACK);
            let version = if rng.random_bool(0.3) { Version::Before } else { Version::Now };
            let answer = match rng.random_range(0..14) {
                0..5 => {
                    let wild = rng.random_bool(0.2);
                    let asks = several(&mut rng, asker).into_iter().map(|asker| {
                        let token = model.now + rng.random_range(0..TOLERANCE - SLACK);
                        (asker, if wild { token + TOLERANCE + SLACK } else { token })
                    });
                    let asks: Vec<_> = asks.collect();
                    let expected = asks
                        .iter()
                        .map(|(asker, proposed)| model.acquire(*asker, LONG, *proposed, TOLERANCE));
                    let expected: Vec<_> = expected.collect();
                    let answers = real.acquire(version, &asks);
                    let are_same = expected.len() == answers.len()
                        && expected.iter().zip(&answers).all(|(one, other)| same(*one, *other));
                    assert!(are_same, "{expected:?} is not {answers:?}: {at}");
                    let token = |answer: &Answer| match answer {
                        Answer::Granted(token) => Some(*token),
                        _ => None,
                    };
                    if expected.iter().map(token).ne(answers.iter().map(token)) {
                        assert!(wild, "{expected:?} is not {answers:?}: {at}");
                        // From here on the tokens would differ by the time between the two.
                        break;
                    }
                    format!("{version:?}: {asks:?} {answers:?}")
                }
                5 => {
                    let expected = model.raise(asker, token);
                    assert_eq!(real.raise(version, asker, token), expected, "raise: {at}");
                    format!("{version:?}: {asker:?} raised: {expected}")
                }
                6..8 => {
                    let expected = model.renew(asker, LONG, token);
                    assert_eq!(real.renew(version, asker, token), expected, "renew: {at}");
                    format!("{version:?}: {asker:?} {expected:?}")
                }
                8..10 => {
                    let asks = several(&mut rng, asker).into_iter().map(|asker| {
                        (asker, [None, Some(false), Some(true)][rng.random_range(0..3)])
                    });
                    let asks: Vec<_> = asks.collect();
                    let expected = asks.iter().map(|(asker, tombstone)| {
                        model.release(*asker, tombstone.map(|always| (LONG, always)))
                    });
                    let expected: Vec<_> = expected.collect();
                    assert_eq!(real.release(version, &asks), expected, "release: {asks:?}, {at}");
                    format!("{version:?}: released {asks:?}: {expected:?}")
                }
                10 => {
                    model.expire();
                    real.say(&["DEL", "lock"]);
                    "expired".to_owned()
                }
                11 if rng.random_bool(0.2) => {
                    model.empty();
                    real.say(&["FLUSHALL"]);
                    "emptied".to_owned()
                }
                _ => {
                    let (found, quarantine) = (rng.random_bool(0.7), LONG * rng.random_range(1..3));
                    model.greet(quarantine, found);
                    real.greet(quarantine, found);
                    "greeted".to_owned()
                }
            };
            answers.push(answer);
        }
    }
}

/// One call raises the tokens of several locks, and another one renews them once the node has lost them. Some of the
/// values that it reads are of another kind, or no numbers.
fn unreadable_values() {
    const LOCKS: [&str; 5] = ["known", "list", "word", "gone", "new"];
    let server = RedisServer::start();
    let mut real = Real::new(&server);
    real.greet(MILLISECOND, true);
    for lock in LOCKS {
        real.say(&["SET", lock, "1:7:5:test", "PX", "60000"]);
    }
    real.say(&["SET", "known:token", "7"]);
    real.say(&["LPUSH", "list:token", "not of a lock"]);
    real.say(&["SET", "word:token", "not a number"]);
    real.say(&["LPUSH", "gone:gone:1", "not of a lock"]);
    let scripts = Scripts::of(Version::Now);
    let mut raise = scripts.raise.prepare_invoke();
    let mut renew = scripts.renew.prepare_invoke();
    for call in [&mut raise, &mut renew] {
        call.key("mark").arg(&real.run).arg(TOLERANCE);
    }
    for lock in LOCKS {
        let token = format!("{lock}:token");
        raise.key(lock).key(&token).arg(1).arg(5).arg(8);
        renew.key(lock).key(&token).key(format!("{lock}:gone:1"));
        renew.arg(1).arg(60_000).arg(6).arg(8).arg("test");
    }
    let mut answers = |call: ScriptInvocation<'_>| -> [String; 5] {
        call.invoke(&mut real.connection).expect("an answer to each")
    };
    let [known, list, word, gone, new] = answers(raise);
    assert_eq!([known, gone, new], ["1"; 3]);
    assert!(list.starts_with("WRONGTYPE"), "{list}");
    assert!(word.contains("not a number"), "{word}");
    let _ = server.cli(&[&["DEL"], &LOCKS[..]].concat());
    let [known, list, word, gone, new] = answers(renew);
    assert_eq!([known, new], ["1"; 2]);
    for text in [list, gone] {
        assert!(text.starts_with("WRONGTYPE"), "{text}");
    }
    assert!(word.contains("not a number"), "{word}");
    for (lock, is_held) in LOCKS.into_iter().zip([true, false, false, false, true]) {
        let expected = if is_held { "1:8:6:test" } else { "" };
        assert_eq!(server.cli(&["GET", lock]).trim(), expected, "{lock}");
    }
}
