//! Waiters that are woken by messages, and waiters that cannot be.

use std::time::{Duration, Instant};

use dlock_runtime::backend::{Backend, Redis};
use dlock_tests::servers::RedisServer;
use redis::AsyncCommands;
use tokio::time::sleep;

use super::steps::scripts_run;
use super::{acquire, plain, registry, steps};

/// Creates a user who may do everything except subscribe and publish, and returns its URL.
async fn user_without_channels(server: &RedisServer) -> String {
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("mute").arg("on").arg(">word");
    acl.arg(&["resetchannels", "~dlock:*", "+@all"]);
    let () = acl.query_async(&mut plain(server).await).await.expect("ACL SETUSER");
    format!("redis://mute:word@127.0.0.1:{}/", server.port())
}

pub(super) async fn a_waiter_outlives_its_subscription() {
    let server = RedisServer::start();
    let (one, other) = (registry(&server).await, registry(&server).await);
    let guard = one.lock("k").ttl(Duration::from_mins(1)).acquire().await.expect("the lock");
    let waiter = tokio::spawn(other.lock("k").wait(Duration::from_secs(30)).acquire());
    let mut connection = plain(&server).await;
    let channels = redis::cmd("PUBSUB").arg(&["CHANNELS", "dlock:*"]).clone();
    while channels.query_async::<Vec<String>>(&mut connection).await.expect("PUBSUB").is_empty() {
        sleep(Duration::from_millis(2)).await;
    }
    let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).clone();
    let killed: i64 = kill.query_async(&mut connection).await.expect("CLIENT KILL");
    assert_eq!(killed, 1, "one subscription per process");
    // Released while nobody is subscribed.
    guard.release().await.expect("held to the end");
    let released = Instant::now();
    let guard = waiter.await.expect("no panic").expect("the lock");
    let took = released.elapsed();
    assert!(took < Duration::from_secs(5), "granted only {took:?} after the release");
    guard.release().await.expect("held to the end");
}

pub(super) async fn waiters_poll_at_once_when_subscribing_is_refused() {
    use dlock_runtime::backend::{Attempt, Claim, Release, Released};
    let server = RedisServer::start();
    let one = registry(&server).await;
    let url = user_without_channels(&server).await;
    let mute = steps::registry(Redis::connect(&url).await.expect("a user"));
    // A release that cannot notify waiters is still a release.
    let backend = Redis::connect(&url).await.expect("a user");
    let mut claim = Claim::new("warm".into(), Duration::from_secs(30));
    let attempt = backend.try_acquire(&claim).await.expect("an answer");
    let Attempt::Granted { token, .. } = attempt else { panic!("it is free: {attempt:?}") };
    claim.token = Some(token);
    let released = backend.release(&claim, Release::default()).await;
    assert!(matches!(released, Ok(Released::Released)), "{released:?}");

    let guard = one.lock("k").ttl(Duration::from_mins(1)).acquire().await.expect("the lock");
    let before = scripts_run(&server);
    let waiter = tokio::spawn(mute.lock("k").wait(Duration::from_mins(1)).acquire());
    let began = Instant::now();
    while scripts_run(&server) < before + 12 {
        sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    guard.release().await.expect("held");
    waiter.await.expect("no panic").expect("the lock").release().await.expect("held");
    // At one poll per second it would take at least twelve.
    assert!(took < Duration::from_secs(8), "a dozen polls took {took:?}");
}

pub(super) async fn a_refused_subscription_is_logged_once_and_leaves_nothing_behind() {
    let server = RedisServer::start();
    let url = user_without_channels(&server).await;
    let contend = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (one, mute) =
                (registry(&server).await, Redis::connect(&url).await.expect("a user"));
            let shown = format!("{mute:?}");
            assert!(shown.contains("wanted: 0, touched: 0"), "{shown}");
            let others = steps::registry(mute.clone());
            for number in 0..200 {
                let key = format!("k{number}");
                let held = acquire(&one, &key).await;
                let lock = others.lock(&key).wait(Duration::from_millis(20));
                assert!(lock.acquire().await.expect_err("held by another").is_busy());
                held.release().await.expect("held");
            }
            format!("{mute:?}")
        })
    };
    let collected = tokio::task::spawn_blocking(|| dlock_tests::logs::collect(contend)).await;
    let (shown, lines) = collected.expect("no panic");
    assert!(shown.contains("wanted: 0, touched: 0"), "subscriptions are left behind: {shown}");
    let logged = lines.matches("waiters poll").count();
    assert_eq!(logged, 1, "logged more than once, or never: {lines}");
}

pub(super) async fn a_new_waiter_wakes_nobody_else() {
    let server = RedisServer::start();
    let backend = Redis::connect(&server.url()).await.expect("the server runs");
    let watch = async |key: &str| backend.watch(&key.into()).await.expect("a subscription");
    let mut first = watch("k").await;
    // The first subscription itself counts as a change.
    let _ = futures_util::FutureExt::now_or_never(first.changed());
    let mut second = watch("k").await;
    // Confirmed only after the second watch is fully set up.
    let _third = watch("another").await;
    let _fourth = watch("a third").await;
    let woken = futures_util::FutureExt::now_or_never(first.changed());
    assert!(woken.is_none(), "woken by another waiter");
    let _: i64 = plain(&server).await.publish("dlock:{k}:free", "").await.expect("PUBLISH");
    first.changed().await;
    second.changed().await;
}
