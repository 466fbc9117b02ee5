//! Redis on a real server: commands on the wire, restarts, stalls, credentials and TLS.

mod batches;
mod deployments;
mod hand_over;
mod late;
mod queues;
mod subscriptions;
mod tokens;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock_runtime::backend::{Backend, Redis};
use dlock_runtime::{Handover, LockError, Mode, Registry, Wait};
use dlock_tests::servers::RedisServer;
use dlock_tests::trials::Trials;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::steps::{self, acquire};

pub(super) fn add(trials: &mut Trials) {
    macro_rules! add {
        ($module:ident: $($test:ident),* $(,)?) => {
            $(trials.needs("redis-server", stringify!($test), $module::$test);)*
        };
    }
    add!(self:
        an_uncontended_cycle_is_two_commands,
        a_reader_a_permit_and_a_fair_lock_are_two_commands_each,
        several_keys_are_acquired_by_one_command,
        a_set_with_an_abandoned_claim_is_not_granted,
        contended_tasks_of_one_process_cost_two_commands_each,
        contended_tasks_of_one_process_share_leases,
        a_hung_server_fails_an_acquire_at_its_deadline,
        a_restart_with_data_keeps_the_hold,
        a_restart_without_data_loses_the_hold,
        a_broken_connection_is_replaced_during_a_hold,
        a_flushed_script_cache_is_filled_again,
        nothing_but_a_counter_and_expiring_keys_is_left_behind,
        a_token_ahead_of_the_clock_is_exceeded_and_kept,
        a_server_that_evicts_is_refused,
        the_documented_permissions_are_enough,
        renewals_and_releases_overtake_a_flood_of_acquires,
        a_restarted_server_is_not_stormed,
        two_passwords_at_a_time_let_credentials_rotate,
        a_wrong_password_is_an_error_without_the_password,
        tls_with_a_private_certificate_authority,
    );
    add!(batches:
        the_server_executes_six_commands_for_an_uncontended_cycle,
        callers_that_are_ready_together_share_commands,
        requests_for_one_key_in_one_batch_are_granted_once,
        a_release_notifies_only_who_is_first_in_line,
        a_value_of_another_kind_fails_only_its_own_lock,
        cancelled_callers_leave_nothing_and_disturb_nobody,
    );
    add!(queues:
        a_look_from_behind_in_a_long_queue_writes_nothing,
        a_long_queue_is_served_in_order,
        writers_behind_readers_look_as_often_as_before,
    );
    add!(deployments:
        the_version_before_and_this_one_never_both_hold,
        the_version_before_does_not_hold_beside_readers_of_this_one,
    );
    add!(tokens: tokens_grow_in_random_schedules, blocks_do_not_overtake_the_clock);
    add!(late:
        an_acquire_that_a_stopped_server_executes_late_grants_nothing,
        a_release_that_overtakes_its_acquire_wins,
        the_first_copy_of_a_resent_acquire_grants_nothing_late,
        the_first_copy_of_an_abandoned_acquire_grants_nothing_late,
        the_only_copy_of_a_failed_acquire_grants_nothing_late,
    );
    add!(hand_over:
        a_contended_cycle_takes_about_three_scripts,
        a_long_line_of_those_who_left_does_not_hide_the_next_one,
        a_reservation_is_not_renewed_and_can_be_ended_by_force,
        a_user_without_hashes_is_notified_as_before,
        a_waiter_that_no_message_reaches_keeps_its_position,
        waiters_behind_many_that_cannot_be_reached_are_notified,
    );
    add!(subscriptions:
        a_waiter_outlives_its_subscription,
        waiters_poll_at_once_when_subscribing_is_refused,
        a_refused_subscription_is_logged_once_and_leaves_nothing_behind,
        a_new_waiter_wakes_nobody_else,
    );
}

async fn registry(server: &RedisServer) -> Registry {
    steps::registry(Redis::connect(&server.url()).await.expect("the server runs"))
}

async fn plain(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("the server runs")
}

/// Runs `work` and returns the commands that clients sent meanwhile, without the calls inside scripts.
async fn on_the_wire(server: &RedisServer, work: impl Future<Output = ()>) -> Vec<String> {
    let client = redis::Client::open(server.url()).expect("a URL");
    let monitor = client.get_async_monitor().await.expect("the server runs");
    let mut lines = monitor.into_on_message::<String>();
    work.await;
    let _: String = redis::cmd("ECHO")
        .arg("the end")
        .query_async(&mut plain(server).await)
        .await
        .expect("ECHO");
    let mut sent = Vec::new();
    while let Some(line) = lines.next().await {
        if line.contains("the end") {
            break;
        }
        let from_script = line.contains(" lua]");
        let setup = ["\"CLIENT\"", "\"HELLO\""].iter().any(|word| line.contains(word));
        if !from_script && !setup {
            sent.push(line);
        }
    }
    sent
}

async fn an_uncontended_cycle_is_two_commands() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    // The first use of a script loads it.
    acquire(&registry, "warm").await.release().await.expect("held");
    let sent = on_the_wire(&server, async {
        for number in 0..10 {
            acquire(&registry, &format!("k{number}")).await.release().await.expect("held");
        }
    })
    .await;
    assert_eq!(sent.len(), 20, "{sent:#?}");
    assert!(sent.iter().all(|line| line.to_ascii_uppercase().contains("\"EVALSHA\"")), "{sent:#?}");
}

async fn several_keys_are_acquired_by_one_command() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    let all = ["a", "b", "c"];
    let cycle = async || {
        let locks = || registry.lock_all(all).wait(Wait::Forever);
        for locks in [locks(), locks().mode(Mode::Shared), locks().fair(true)] {
            locks.acquire().await.expect("free").release().await.expect("held");
        }
    };
    cycle().await;
    let sent = on_the_wire(&server, cycle()).await;
    let acquires = sent.iter().filter(|command| command.contains("dlock:tokens")).count();
    assert_eq!(acquires, 3, "{sent:#?}");
    // The keys of a set are released separately, some of them together.
    assert!((6..=3 * (1 + 3)).contains(&sent.len()), "{sent:#?}");
}

async fn a_set_with_an_abandoned_claim_is_not_granted() {
    use dlock_runtime::backend::{Claim, Release, SetAttempt};
    let server = RedisServer::start();
    let backend = Redis::connect(&server.url()).await.expect("the server runs");
    let set = ["a", "b"].map(|key| Claim::new(key.into(), Duration::from_secs(30)));
    let abandon = Release { late_acquire: true, keep_for: None };
    backend.release(&set[1], abandon).await.expect("an answer");
    let answer = backend.try_acquire_set(&set).await.expect("an answer");
    assert!(matches!(answer, SetAttempt::Busy { at: 1, .. }), "an abandoned set: {answer:?}");
    assert!(backend.list("").await.expect("an answer").is_empty());
}

async fn a_reader_a_permit_and_a_fair_lock_are_two_commands_each() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    let five = NonZeroU32::MIN.saturating_add(4);
    let cycle = async |key: &str| {
        let lock = || registry.lock(key).wait(Wait::Forever);
        for lock in [lock().mode(Mode::Shared), lock().permits(five), lock().fair(true)] {
            lock.acquire().await.expect("free").release().await.expect("held");
        }
    };
    cycle("warm").await;
    let sent = on_the_wire(&server, async {
        for number in 0..10 {
            cycle(&format!("k{number}")).await;
        }
    })
    .await;
    assert_eq!(sent.len(), 60, "{sent:#?}");
    assert!(sent.iter().all(|line| line.to_ascii_uppercase().contains("\"EVALSHA\"")), "{sent:#?}");
}

async fn contended_tasks_of_one_process_cost_two_commands_each() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    acquire(&registry, "warm").await.release().await.expect("held");
    let sent = on_the_wire(&server, call_at_once(&registry, Handover::OFF)).await;
    assert_eq!(sent.len(), 512, "commands for 256 cycles");
}

async fn contended_tasks_of_one_process_share_leases() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    acquire(&registry, "warm").await.release().await.expect("held");
    let often = Handover::up_to(64, Duration::from_secs(5));
    let sent = on_the_wire(&server, call_at_once(&registry, often)).await;
    // Some of the first tasks may find the key free before the others wait.
    assert!(sent.len() <= 40, "{} commands for 256 cycles", sent.len());
}

/// 256 tasks that want one key.
async fn call_at_once(registry: &Registry, handover: Handover) {
    let lock = || registry.lock("k").wait(Wait::Forever).handover(handover);
    let tasks = (0..256).map(|_| tokio::spawn(lock().run(std::future::ready(()))));
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic").expect("the lock");
    }
}

async fn a_hung_server_fails_an_acquire_at_its_deadline() {
    let mut server = RedisServer::start();
    let registry = registry(&server).await;
    server.pause();
    steps::assert_waits_for_hung_server(&registry).await;
    server.resume();
}

/// Long enough to span a restart of the server.
const TTL: Duration = Duration::from_secs(6);

async fn a_restart_with_data_keeps_the_hold() {
    let mut server = RedisServer::start_durable();
    let (one, other) = (registry(&server).await, registry(&server).await);
    steps::assert_hold_survives(&one, &other, TTL, || {
        server.kill();
        server.restart();
    })
    .await;
}

async fn a_restart_without_data_loses_the_hold() {
    let mut server = RedisServer::start();
    let (one, other) = (registry(&server).await, registry(&server).await);
    let lock = one.lock("k").ttl(TTL).wait(Wait::Forever);
    let mut token = None;
    let ended = lock
        .run(async {
            let holder = one.lock("k").inspect().await.expect("an answer").expect("we hold it");
            token = Some(holder.token);
            server.kill();
            server.restart();
            std::future::pending::<()>().await;
        })
        .await;
    assert!(matches!(ended, Err(LockError::Lost { completed: false, .. })), "{ended:?}");
    let next = acquire(&other, "k").await;
    assert!(Some(next.fencing_token()) > token, "{} follows {token:?}", next.fencing_token());
    next.release().await.expect("held");
}

async fn a_broken_connection_is_replaced_during_a_hold() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    let guard = registry.lock("k").ttl(Duration::from_millis(1_500)).acquire().await.expect("free");
    let mut connection = plain(&server).await;
    for _ in 0..3 {
        let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).clone();
        let _: i64 = kill.query_async(&mut connection).await.expect("CLIENT KILL");
        sleep(Duration::from_millis(700)).await;
    }
    assert!(guard.is_held(), "the hold ended with its connection");
    guard.release().await.expect("held to the end");
}

async fn a_flushed_script_cache_is_filled_again() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    let mut connection = plain(&server).await;
    let guard = acquire(&registry, "k").await;
    let flush = redis::cmd("SCRIPT").arg("FLUSH").clone();
    let () = flush.query_async(&mut connection).await.expect("SCRIPT FLUSH");
    guard.release().await.expect("held to the end");
    acquire(&registry, "k").await.release().await.expect("held to the end");
}

async fn nothing_but_a_counter_and_expiring_keys_is_left_behind() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    for number in 0..20 {
        acquire(&registry, &format!("k{number}")).await.release().await.expect("held");
        // Some are abandoned in flight, which leaves a tombstone.
        let lock = registry.lock(format!("gone{number}"));
        drop(tokio::time::timeout(Duration::from_micros(number * 20), lock.acquire()).await);
        let shared = registry.lock(format!("s{number}")).mode(Mode::Shared);
        let read = shared.clone().acquire().await.expect("free");
        let fair = registry.lock(format!("s{number}")).fair(true).wait(Duration::from_millis(5));
        fair.acquire().await.expect_err("a reader is there");
        drop(tokio::time::timeout(Duration::from_micros(number * 20), shared.acquire()).await);
        read.release().await.expect("held");
    }
    registry.shutdown(Duration::from_secs(10)).await.expect("all is released");
    let mut connection = plain(&server).await;
    let keys: Vec<String> = connection.keys("*").await.expect("KEYS");
    let (counter, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key == "dlock:tokens");
    assert_eq!(counter.len(), 1, "one counter for all locks");
    for key in rest {
        assert!(key.contains(":gone:"), "{key} is left behind");
        let left: i64 = connection.ttl(&key).await.expect("TTL");
        assert!((1..=3_600).contains(&left), "{key} expires in {left} s");
    }
    let channels = redis::cmd("PUBSUB").arg("CHANNELS").clone();
    let channels: Vec<String> = channels.query_async(&mut connection).await.expect("PUBSUB");
    assert!(channels.is_empty(), "still subscribed to {channels:?}");
}

async fn a_token_ahead_of_the_clock_is_exceeded_and_kept() {
    let server = RedisServer::start();
    let registry = registry(&server).await;
    let mut connection = plain(&server).await;
    let (now, _): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await.expect("TIME");
    // As issued under a clock that was two hours ahead.
    let ahead = (now + 7_200) * 1_000_000;
    let () = connection.set("dlock:tokens", ahead).await.expect("SET");
    let guard = acquire(&registry, "k").await;
    let first = guard.fencing_token().get();
    // The server may have forgotten as many as it draws in a second.
    assert_eq!(first, ahead + (1 << 20) + 1);
    guard.release().await.expect("held");
    let guard = acquire(&registry, "another").await;
    assert_eq!(guard.fencing_token().get(), first + 1, "the connection is known");
    let left: i64 = connection.ttl("dlock:tokens").await.expect("TTL");
    assert_eq!(left, -1, "the counter is kept for good");
    guard.release().await.expect("held");
}

async fn a_server_that_evicts_is_refused() {
    let server = RedisServer::start_with(&["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    let refused = Redis::connect(&server.url()).await.expect_err("it evicts locks");
    assert!(refused.to_string().contains("allkeys-lru"), "{refused}");
    assert!(!refused.is_transient());
}

/// The permissions that the documentation of the Redis backend lists.
const PERMISSIONS: &str = "~dlock:* &dlock:* -@all +evalsha +script|load +get +set +del \
                           +mget +exists +incrby +pexpire +pttl +time +publish +subscribe +unsubscribe +ping";

async fn the_documented_permissions_are_enough() {
    let server = RedisServer::start();
    let mut connection = plain(&server).await;
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("locks").arg("on").arg(">s3cret/word");
    acl.arg(PERMISSIONS.split_whitespace().collect::<Vec<_>>());
    let () = acl.query_async(&mut connection).await.expect("ACL SETUSER");
    let url = format!("redis://locks:s3cret%2Fword@127.0.0.1:{}/", server.port());
    let backend = Redis::connect(&url).await.expect("these credentials");
    assert!(!format!("{backend:?}").contains("s3cret"));
    let registry = steps::registry(backend);
    let guard = acquire(&registry, "k").await;
    let waiter = tokio::spawn(registry.lock("k").wait(Wait::Forever).acquire());
    guard.release().await.expect("held to the end");
    let guard = waiter.await.expect("no panic").expect("the lock");
    assert!(registry.lock("k").inspect().await.expect("allowed").is_some());
    assert!(registry.lock("k").force_release().await.expect("allowed"));
    assert!(guard.release().await.expect_err("released by force").is_lost());
}

async fn renewals_and_releases_overtake_a_flood_of_acquires() {
    use dlock_runtime::backend::{Claim, Release, Renewal};
    const FLOOD: usize = 20_000;
    let server = RedisServer::start();
    let builder = Redis::builder().response_timeout(Duration::from_mins(2));
    let backend = builder.connect(&server.url()).await.expect("the server runs");
    let claim = |key: String| Claim::new(key.into(), Duration::from_mins(5));
    let held = claim("held".to_owned());
    backend.try_acquire(&held).await.expect("an answer");
    backend.renew(&held).await.expect("an answer");

    let (began, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flood = tokio::spawn({
        let (backend, began, answered) = (backend.clone(), began.clone(), answered.clone());
        async move {
            let claims: Vec<_> = (0..FLOOD).map(|number| claim(format!("k{number}"))).collect();
            let all = claims.iter().map(|claim| {
                began.fetch_add(1, Ordering::Relaxed);
                backend.try_acquire(claim)
            });
            let mut all: FuturesUnordered<_> = all.collect();
            while let Some(answer) = all.next().await {
                answer.expect("an answer");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    // All are sent, and hardly any is answered.
    while began.load(Ordering::Relaxed) < FLOOD || answered.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let renewal = backend.renew(&held).await.expect("an answer");
    backend.release(&held, Release::default()).await.expect("an answer");
    let before = answered.load(Ordering::Relaxed);
    assert!(matches!(renewal, Renewal::Renewed { .. }), "{renewal:?}");
    assert!(before < FLOOD / 2, "{before} of {FLOOD} acquires preceded a renewal and a release");
    flood.await.expect("no panic");
}

/// By the server's own count, which includes a few connections of the test.
async fn a_restarted_server_is_not_stormed() {
    let mut server = RedisServer::start();
    let registry = registry(&server).await;
    acquire(&registry, "warm").await.release().await.expect("held");
    server.kill();
    let waiting: Vec<_> = (0..500)
        .map(|number| registry.lock(format!("k{number}")).wait(Duration::from_mins(2)).acquire())
        .map(tokio::spawn)
        .collect();
    // By now all have seen the outage.
    sleep(Duration::from_millis(500)).await;
    server.restart();
    for task in waiting {
        task.await.expect("no panic").expect("the server is back").release().await.expect("held");
    }
    let told = server.cli(&["INFO", "stats"]);
    let count = told.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    let count: usize = count.and_then(|count| count.trim().parse().ok()).expect("a count");
    assert!(count < 20, "{count} connections");
}

/// The procedure in the documentation of the Redis backend.
async fn two_passwords_at_a_time_let_credentials_rotate() {
    let server = RedisServer::start();
    let mut admin = plain(&server).await;
    let mut set = async |words: &[&str]| {
        let mut acl = redis::cmd("ACL");
        acl.arg("SETUSER").arg("locks").arg(words);
        let () = acl.query_async(&mut admin).await.expect("ACL SETUSER");
    };
    let url = |password: &str| format!("redis://locks:{password}@127.0.0.1:{}/", server.port());
    set(&["on", "~dlock:*", "&dlock:*", "+@all", ">old"]).await;
    let before = steps::registry(Redis::connect(&url("old")).await.expect("the old password"));
    let held = before.lock("k").ttl(Duration::from_millis(1_500)).acquire().await.expect("free");

    set(&[">new"]).await;
    let after = steps::registry(Redis::connect(&url("new")).await.expect("the new password"));
    Redis::connect(&url("old")).await.expect("still valid");
    let waiter = tokio::spawn(after.lock("k").wait(Duration::from_mins(1)).acquire());
    set(&["<old"]).await;
    Redis::connect(&url("old")).await.expect_err("no longer valid");
    // A connection authenticated before the change keeps working.
    sleep(Duration::from_secs(2)).await;
    assert!(held.is_held(), "not renewed over its old connection");
    held.release().await.expect("held");
    waiter.await.expect("no panic").expect("the lock").release().await.expect("held");
}

async fn a_wrong_password_is_an_error_without_the_password() {
    let server = RedisServer::start_with(&["--save", "", "--requirepass", "right"]);
    let url = format!("redis://:wr0ng@127.0.0.1:{}/", server.port());
    let error = Redis::connect(&url).await.expect_err("a wrong password");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("wr0ng"), "{shown}");
    assert!(!error.is_transient(), "{shown}");
    let url = format!("redis://:right@127.0.0.1:{}/", server.port());
    Redis::connect(&url).await.expect("the right password");
}

async fn tls_with_a_private_certificate_authority() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key pair");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, signed.cert.pem()).expect("a file");
    std::fs::write(&key, signed.signing_key.serialize_pem()).expect("a file");
    let port = dlock_tests::servers::free_port().expect("a port").to_string();
    let path = |file: &std::path::Path| file.to_str().expect("a plain path").to_owned();
    let (certificate, key) = (path(&certificate), path(&key));
    let _server = RedisServer::start_with(&[
        "--save",
        "",
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}/");
    Redis::connect(&url).await.expect_err("an unknown authority");
    let builder = Redis::builder().root_certificate(signed.cert.pem());
    let registry = steps::registry(builder.connect(&url).await.expect("a known authority"));
    acquire(&registry, "k").await.release().await.expect("held to the end");
}
