//! While a new version is deployed, processes of the version before it share the server: both never hold a lock, and
//! tokens grow over both.

use std::time::Duration;

use dlock_runtime::OwnerId;
use dlock_runtime::backend::{Attempt, Backend, Claim, Mode, Redis, Release, Released, Renewal};
use dlock_tests::servers::RedisServer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::Script;
use redis::aio::MultiplexedConnection;

use super::plain;

const TTL: Duration = Duration::from_secs(30);

/// A process of the version before: its scripts, called as it called them.
struct Before {
    connection: MultiplexedConnection,
    acquire: Script,
    renew: Script,
    release: Script,
}

impl Before {
    async fn new(server: &RedisServer) -> Self {
        Self {
            connection: plain(server).await,
            acquire: Script::new(include_str!("before/acquire.lua")),
            renew: Script::new(include_str!("before/renew.lua")),
            release: Script::new(include_str!("before/release.lua")),
        }
    }

    /// The token, if granted.
    async fn acquire(&mut self, key: &str, owner: OwnerId) -> Option<u64> {
        let lock = format!("dlock:{{{key}}}");
        let mut call = self.acquire.prepare_invoke();
        call.key(&lock).key(format!("{lock}:token")).key(format!("{lock}:gone:{owner}"));
        call.key(format!("{lock}:group"));
        call.arg(owner.to_string()).arg(30_000).arg(0).arg(0).arg(0).arg("host,1,1,before");
        let (kind, token, _): (u8, i64, String) =
            call.invoke_async(&mut self.connection).await.expect("an answer");
        (kind == 1).then_some(token.unsigned_abs())
    }

    async fn renew(&mut self, key: &str, owner: OwnerId) -> bool {
        let mut call = self.renew.prepare_invoke();
        call.key(format!("dlock:{{{key}}}")).arg(owner.to_string()).arg(30_000);
        call.invoke_async::<u8>(&mut self.connection).await.expect("an answer") == 1
    }

    async fn release(&mut self, key: &str, owner: OwnerId) -> bool {
        let lock = format!("dlock:{{{key}}}");
        let mut call = self.release.prepare_invoke();
        call.key(&lock).key(format!("{lock}:gone:{owner}"));
        call.arg(owner.to_string()).arg(0).arg(0).arg(format!("{lock}:free"));
        call.arg(0).arg("missing");
        call.invoke_async::<u8>(&mut self.connection).await.expect("an answer") == 1
    }
}

#[derive(Debug)]
enum Holder {
    Before(OwnerId),
    Now(Claim),
}

pub(super) async fn the_version_before_and_this_one_never_both_hold() {
    let server = RedisServer::start();
    let mut before = Before::new(&server).await;
    let now = Redis::connect(&server.url()).await.expect("the server runs");
    let mut rng = StdRng::seed_from_u64(7);
    let keys = ["a", "b", "c"];
    let mut holders: [Option<Holder>; 3] = Default::default();
    let mut last = [0_u64; 3];
    for step in 0..3_000 {
        let at = rng.random_range(0..keys.len());
        let key = keys[at];
        let shown = format!("step {step}, {key} is held by {:?}", holders[at]);
        if rng.random_bool(0.5) {
            let block = [1, 1, 7, 1_024][rng.random_range(0..4)];
            let claim = Claim::new(key.into(), TTL).with_wait_left(TTL).with_token_block(block);
            let by_now = rng.random_bool(0.5);
            let granted = if by_now {
                match now.try_acquire(&claim).await.expect("an answer") {
                    Attempt::Granted { token, token_block, .. } => {
                        Some((token.get(), token.get() + u64::from(token_block) - 1))
                    }
                    _ => None,
                }
            } else {
                before.acquire(key, claim.owner).await.map(|token| (token, token))
            };
            assert_eq!(granted.is_some(), holders[at].is_none(), "{shown}");
            if let Some((token, end)) = granted {
                assert!(token > last[at], "{shown}: {token} after {}", last[at]);
                last[at] = end;
                let mut claim = claim;
                claim.token = Some(dlock_runtime::FencingToken::new(token));
                holders[at] =
                    Some(if by_now { Holder::Now(claim) } else { Holder::Before(claim.owner) });
            }
            continue;
        }
        let is_renewal = rng.random_bool(0.4);
        let answer = match &holders[at] {
            None => continue,
            Some(Holder::Before(owner)) if is_renewal => before.renew(key, *owner).await,
            Some(Holder::Before(owner)) => before.release(key, *owner).await,
            Some(Holder::Now(claim)) if is_renewal => {
                matches!(now.renew(claim).await.expect("an answer"), Renewal::Renewed { .. })
            }
            Some(Holder::Now(claim)) => {
                let released = now.release(claim, Release::default()).await;
                released.expect("an answer") == Released::Released
            }
        };
        assert!(answer, "{shown}: its holder was not found");
        if !is_renewal {
            holders[at] = None;
        }
    }
}

pub(super) async fn the_version_before_does_not_hold_beside_readers_of_this_one() {
    let server = RedisServer::start();
    let mut before = Before::new(&server).await;
    let now = Redis::connect(&server.url()).await.expect("the server runs");
    let reader = Claim::new("k".into(), TTL).with_mode(Mode::Shared);
    let answer = now.try_acquire(&reader).await.expect("an answer");
    assert!(matches!(answer, Attempt::Granted { .. }), "{answer:?}");
    assert_eq!(before.acquire("k", OwnerId::random()).await, None);
    now.release(&reader, Release::default()).await.expect("an answer");
    assert!(before.acquire("k", OwnerId::random()).await.is_some());
    let answer = now.try_acquire(&reader).await.expect("an answer");
    assert!(matches!(answer, Attempt::Busy { .. }), "{answer:?}");
}
