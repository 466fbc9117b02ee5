//! Tokens grow: random schedules of the scripts, on a server whose clock the test sets.

use std::collections::HashMap;

use dlock_tests::servers::RedisServer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::{Commands, Connection, Script, Value};

/// The scripts with a clock that the test sets.
fn acquire_script() -> Script {
    const CODE: &str = concat!(
        include_str!("../../../../dlock-runtime/src/stores/redis/free.lua"),
        include_str!("../../../../dlock-runtime/src/stores/redis/tokens.lua"),
        include_str!("../../../../dlock-runtime/src/stores/redis/clock.lua"),
        include_str!("../../../../dlock-runtime/src/stores/redis/announce.lua"),
        include_str!("../../../../dlock-runtime/src/stores/redis/line.lua"),
        include_str!("../../../../dlock-runtime/src/stores/redis/acquire.lua"),
    );
    assert!(CODE.contains("redis.call('TIME')"), "the script reads the clock in another way");
    Script::new(&CODE.replace("redis.call('TIME')", "{0, redis.call('GET', 'clock')}"))
}

/// A process and its connection.
#[derive(Clone, Copy, Default)]
struct Client {
    largest: u64,
    has_drawn: bool,
}

struct Schedule {
    rng: StdRng,
    connection: Connection,
    script: Script,
    clients: [Client; 4],
    /// The last token of each lock.
    last: HashMap<u32, u64>,
    largest: u64,
    /// The true time, and how far the server's clock is from it.
    time: i64,
    offset: i64,
    log: Vec<String>,
}

const LOCKS: u32 = 3;
const HOUR: i64 = 3_600_000_000;

impl Schedule {
    fn step(&mut self) {
        // At most one token in a microsecond.
        self.time += self.rng.random_range(1..5_000);
        match self.rng.random_range(0..100) {
            0..80 => self.acquire(),
            80..86 => {
                let client = self.rng.random_range(0..self.clients.len());
                self.clients[client] = Client::default();
                self.log.push(format!("{client} reconnects"));
            }
            86..92 => {
                self.offset = self.rng.random_range(-2 * HOUR..2 * HOUR);
                self.log.push(format!("the clock is set to {:+}", self.offset));
            }
            92..97 => self.restart(),
            _ => self.empty(),
        }
    }

    fn clock(&self) -> i64 {
        self.time + self.offset
    }

    fn acquire(&mut self) {
        let number = self.rng.random_range(0..self.clients.len());
        let lock = self.rng.random_range(0..LOCKS);
        let client = &mut self.clients[number];
        let () = self.connection.set("clock", self.time + self.offset).expect("SET");
        let name = format!("dlock:{{{lock}}}");
        let mut call = self.script.prepare_invoke();
        call.key("dlock:tokens").key(&name).key(format!("{name}:gone:o"));
        call.key(format!("{name}:group")).key(format!("{name}:token"));
        call.key(format!("{name}:line"));
        let block = [1, 1, 8, 1_024][self.rng.random_range(0..4)];
        call.arg(client.largest).arg(u8::from(!client.has_drawn)).arg(block).arg("1 c");
        call.arg("0123456789abcdef0123456789abcdef").arg(1_000_000).arg("info").arg(block).arg(0);
        let [answer]: [Value; 1] = call.invoke(&mut self.connection).expect("granted");
        let (first, last) = match answer {
            Value::Int(last) => (last.unsigned_abs() - (block - 1), last.unsigned_abs()),
            // Without the block, because the tokens would overtake the clock.
            Value::Array(words) => match words[..] {
                [Value::Int(token), Value::Int(1)] => (token.unsigned_abs(), token.unsigned_abs()),
                _ => panic!("{words:?}"),
            },
            other => panic!("{other:?}"),
        };
        let () = self.connection.del(&name).expect("DEL");
        client.has_drawn = true;
        client.largest = client.largest.max(last);
        self.largest = self.largest.max(last);
        self.log.push(format!("{number} draws {first} to {last} for {lock}"));
        let before = self.last.insert(lock, last);
        assert!(before.is_none_or(|before| first > before), "{:#?}", self.log);
    }

    /// The server comes back without the last tokens, and every connection is new.
    fn restart(&mut self) {
        let counter: Option<u64> = self.connection.get("dlock:tokens").expect("GET");
        if let Some(counter) = counter {
            let lost = self.rng.random_range(0..1_000.min(counter));
            let () = self.connection.set("dlock:tokens", counter - lost).expect("SET");
            self.log.push(format!("a restart forgets {lost} tokens"));
        }
        self.clients = Default::default();
    }

    /// The server forgets everything, with or without new connections. Tokens that were drawn under a clock that was
    /// ahead are then exceeded only when the clock has passed them.
    fn empty(&mut self) {
        if self.clock() <= i64::try_from(self.largest).expect("a time") {
            return;
        }
        let () = redis::cmd("FLUSHALL").query(&mut self.connection).expect("FLUSHALL");
        self.log.push("emptied".to_owned());
        // Emptied, and then set back before anybody draws: nothing is left that knows of the tokens.
        self.acquire();
    }
}

impl Schedule {
    fn new(seed: u64, server: &redis::Client) -> Self {
        let mut connection = server.get_connection().expect("the server runs");
        let () = redis::cmd("FLUSHALL").query(&mut connection).expect("FLUSHALL");
        Self {
            rng: StdRng::seed_from_u64(seed),
            connection,
            script: acquire_script(),
            clients: Default::default(),
            last: HashMap::new(),
            largest: 0,
            time: 1_700_000_000_000_000,
            offset: 0,
            log: vec![format!("schedule {seed}")],
        }
    }
}

/// In the time that a block would need at one token in a microsecond, many blocks are asked for. A server that forgot
/// them would have to be ahead of them by its clock.
pub(super) async fn blocks_do_not_overtake_the_clock() {
    let server = RedisServer::start();
    let schedule = tokio::task::spawn_blocking(move || {
        let client = redis::Client::open(server.url()).expect("a URL");
        let mut schedule = Schedule::new(0, &client);
        for _ in 0..5_000 {
            schedule.time += schedule.rng.random_range(10..100);
            schedule.acquire();
            let (largest, clock) = (schedule.largest, schedule.clock());
            assert!(
                i64::try_from(largest).is_ok_and(|largest| largest <= clock + 1),
                "{largest} {clock}"
            );
        }
    });
    schedule.await.expect("the tokens stay behind");
}

pub(super) async fn tokens_grow_in_random_schedules() {
    let server = RedisServer::start();
    let schedules = tokio::task::spawn_blocking(move || {
        let client = redis::Client::open(server.url()).expect("a URL");
        for seed in 0..200 {
            let mut schedule = Schedule::new(seed, &client);
            for _ in 0..200 {
                schedule.step();
            }
        }
    });
    schedules.await.expect("tokens grow");
}
