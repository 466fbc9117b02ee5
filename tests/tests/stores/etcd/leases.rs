//! Leases that pass from claim to claim, and requests that share transactions.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dlock_runtime::backend::{Attempt, Backend, Claim, Etcd, Release, Released, Renewal};
use dlock_runtime::{FencingToken, Wait};
use dlock_tests::proxy::Proxy;
use dlock_tests::servers::EtcdServer;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{LONG, left, registry, requests};
use crate::steps::{self, until};

/// The number of changes that the server has committed, those of leases included.
fn writes(server: &EtcdServer) -> u64 {
    server.statistic("etcd_server_proposals_committed_total")
}

/// The revision of the store.
fn revision(server: &EtcdServer) -> u64 {
    let shown = server.ctl(&["get", "nothing", "--write-out", "json"]);
    let (_, rest) = shown.split_once("\"revision\":").expect("it has a header");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// The ids of the leases on the server.
fn leases(server: &EtcdServer) -> Vec<String> {
    let listed = server.ctl(&["lease", "list"]);
    listed.lines().skip(1).map(|line| line.trim().to_owned()).filter(|id| !id.is_empty()).collect()
}

fn claim(key: &str) -> Claim {
    Claim::new(key.into(), LONG)
}

/// Tries to acquire, and returns the token and the validity if it is granted.
async fn tries(store: &Etcd, claim: &Claim) -> Option<(FencingToken, Duration)> {
    match Backend::try_acquire(store, claim).await.expect("an answer") {
        Attempt::Granted { token, validity, .. } => Some((token, validity)),
        _ => None,
    }
}

async fn releases(store: &Etcd, claim: &Claim) -> Released {
    Backend::release(store, claim, Release::default()).await.expect("an answer")
}

async fn is_renewed(store: &Etcd, claim: &Claim) -> bool {
    let answer = Backend::renew(store, claim).await.expect("an answer");
    matches!(answer, Renewal::Renewed { .. })
}

/// Fills the pool of idle leases.
async fn cycles_at_once(store: &Etcd, number: usize) {
    let claims: Vec<_> = (0..number).map(|at| claim(&format!("k{at}"))).collect();
    let granted = join_all(claims.iter().map(|claim| tries(store, claim))).await;
    assert!(granted.iter().all(Option::is_some), "{granted:?}");
    let released = join_all(claims.iter().map(|claim| releases(store, claim))).await;
    assert!(released.iter().all(|answer| *answer == Released::Released), "{released:?}");
}

pub(super) async fn an_uncontended_cycle_is_two_requests_and_two_writes() {
    let server = EtcdServer::start();
    let registry = registry(&server.url()).await;
    let cycle = || async {
        let guard = registry.lock("k").ttl(LONG).acquire().await.expect("the lock");
        guard.release().await.expect("held");
    };
    cycle().await;
    let (requests_before, writes_before) = (requests(&server), writes(&server));
    for _ in 0..20 {
        cycle().await;
    }
    assert_eq!(requests(&server) - requests_before, 40);
    assert_eq!(writes(&server) - writes_before, 40);
}

pub(super) async fn callers_that_are_ready_together_share_transactions() {
    const TASKS: u64 = 64;
    const CYCLES: u64 = 20;
    let server = EtcdServer::start();
    let registry = registry(&server.url()).await;
    let run = |cycles| {
        let tasks = (0..TASKS).map(|task| {
            let registry = registry.clone();
            tokio::spawn(async move {
                let mut last = None;
                for _ in 0..cycles {
                    let lock = registry.lock(format!("k{task}")).ttl(LONG).wait(Wait::Forever);
                    let token = Some(steps::acquire_once(lock).await);
                    assert!(token > last, "{token:?} after {last:?}");
                    last = token;
                }
            })
        });
        join_all(tasks.collect::<Vec<_>>())
    };
    run(2).await;
    let before = requests(&server);
    for task in run(CYCLES).await {
        task.expect("no panic");
    }
    let sent = requests(&server) - before;
    assert!(sent <= TASKS * CYCLES * 2 / 4, "{sent} requests");
    assert_eq!(left(&server).0, 0);
}

pub(super) async fn a_busy_try_writes_nothing() {
    let server = EtcdServer::start();
    let (one, other) = (registry(&server.url()).await, registry(&server.url()).await);
    let guard = one.lock("k").ttl(LONG).acquire().await.expect("the lock");
    let try_it = || async {
        let answer = other.lock("k").ttl(LONG).wait(Duration::ZERO).acquire().await;
        assert!(answer.is_err_and(|error| error.is_busy()));
    };
    try_it().await;
    let (before, leases_before) = (revision(&server), leases(&server));
    for _ in 0..20 {
        try_it().await;
    }
    assert_eq!(revision(&server), before);
    assert_eq!(leases(&server), leases_before);
    guard.release().await.expect("held to the end");
    let next = other.lock("k").ttl(LONG).wait(Duration::ZERO).acquire().await.expect("the lock");
    assert_eq!(leases(&server), leases_before);
    next.release().await.expect("held to the end");
}

pub(super) async fn a_lease_counts_from_its_grant_and_not_from_its_reuse() {
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    cycles_at_once(&store, 1).await;
    let (granted, most) = (Instant::now(), LONG * 99 / 100);
    // Used again, and then too old for that.
    for (pause, is_new) in [(LONG / 40, false), (LONG / 20, true)] {
        sleep(pause).await;
        let (asked, claim) = (Instant::now(), claim("k"));
        let (_, validity) = tries(&store, &claim).await.expect("nobody holds it");
        let proved = if is_new { asked } else { granted };
        assert!(validity <= most.saturating_sub(asked - proved), "{validity:?}");
        assert!(validity + LONG / 20 + Duration::from_secs(1) > most, "{validity:?}");
        assert_eq!(releases(&store, &claim).await, Released::Released);
    }
    assert_eq!(leases(&server).len(), 2, "the old one ends by itself");
}

pub(super) async fn an_idle_lease_that_was_revoked_is_replaced() {
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    cycles_at_once(&store, 4).await;
    let old = leases(&server);
    assert_eq!(old.len(), 4);
    for lease in &old {
        let _ = server.ctl(&["lease", "revoke", lease]);
    }
    for number in 0..4 {
        let claim = claim(&format!("k{number}"));
        tries(&store, &claim).await.expect("a new lease");
        assert!(is_renewed(&store, &claim).await);
        assert_eq!(releases(&store, &claim).await, Released::Released);
    }
    assert!(leases(&server).iter().all(|lease| !old.contains(lease)));
}

pub(super) async fn one_caller_without_a_lease_does_not_fail_its_neighbours() {
    const CLAIMS: usize = 16;
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    cycles_at_once(&store, CLAIMS).await;
    let old = leases(&server);
    let _ = server.ctl(&["lease", "revoke", &old[CLAIMS / 2]]);
    let claims: Vec<_> = (0..CLAIMS).map(|at| claim(&format!("k{at}"))).collect();
    let granted = join_all(claims.iter().map(|claim| tries(&store, claim))).await;
    assert!(granted.iter().all(Option::is_some), "{granted:?}");
    assert_eq!(leases(&server).len(), CLAIMS);
    for claim in &claims {
        assert!(is_renewed(&store, claim).await);
        assert_eq!(releases(&store, claim).await, Released::Released);
    }
}

/// Whatever of it is executed late puts no key: its lease has ended, and no other claim has that lease.
pub(super) async fn an_unanswered_acquire_ends_its_lease() {
    let server = EtcdServer::start();
    let proxy = Proxy::start(server.port()).await;
    let registry = registry(&format!("etcd://127.0.0.1:{}", proxy.port())).await;
    let cycle = || async {
        let guard = registry.lock("k").ttl(LONG).acquire().await.expect("the lock");
        guard.release().await.expect("held");
    };
    cycle().await;
    let old = leases(&server);
    for stall in [Proxy::stall_answers as fn(&Proxy), Proxy::stall] {
        let before = leases(&server);
        stall(&proxy);
        let acquire = registry.lock("k").ttl(LONG).acquire();
        let gone = tokio::time::timeout(Duration::from_millis(100), acquire).await;
        assert!(gone.is_err(), "{gone:?}");
        proxy.resume();
        until("its lease has ended", || !leases(&server).iter().any(|id| before.contains(id)))
            .await;
        assert_eq!(left(&server).0, 0);
        cycle().await;
    }
    assert!(leases(&server).iter().all(|lease| !old.contains(lease)));
}

pub(super) async fn a_late_release_does_not_end_the_next_hold() {
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    let [first, second] = [claim("k"), claim("k")];
    let (token, _) = tries(&store, &first).await.expect("nobody holds it");
    assert_eq!(releases(&store, &first).await, Released::Released);
    let used = leases(&server);
    let (next, _) = tries(&store, &second).await.expect("nobody holds it");
    assert!(next > token);
    assert_eq!(leases(&server), used, "the same lease");
    for late_acquire in [false, true, false] {
        let release = Release { keep_for: None, late_acquire };
        let answer = Backend::release(&store, &first, release).await.expect("an answer");
        assert_eq!(answer, Released::NotHeld);
        assert!(is_renewed(&store, &second).await);
    }
    assert!(tries(&store, &first).await.is_none(), "it was abandoned");
    assert!(is_renewed(&store, &second).await);
    assert_eq!(releases(&store, &second).await, Released::Released);
}

/// They queue, although they are ready together.
pub(super) async fn claims_of_one_key_have_growing_tokens() {
    const CLAIMS: usize = 20;
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    let one = |_| async {
        let claim = claim("k");
        let answer = Backend::acquire_queued(&store, &claim).await.expect("an answer");
        let Attempt::Granted { token, .. } = answer else { panic!("{answer:?}") };
        // Nobody else is granted it meanwhile.
        let head = server.ctl(&[
            "get",
            "dlock/k/",
            "--prefix",
            "--sort-by=CREATE",
            "--order=ASCEND",
            "--limit=1",
        ]);
        assert!(head.contains(&claim.owner.to_string()), "{head}");
        assert_eq!(releases(&store, &claim).await, Released::Released);
        token
    };
    for _ in 0..2 {
        let mut tokens = join_all((0..CLAIMS).map(one)).await;
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), CLAIMS);
    }
}

pub(super) async fn a_revoked_hold_does_not_pass_on_its_lease() {
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    let [first, second] = [claim("k"), claim("k")];
    tries(&store, &first).await.expect("nobody holds it");
    let used = leases(&server);
    assert!(Backend::revoke(&store, &"k".into()).await.expect("an answer"));
    assert!(!is_renewed(&store, &first).await);
    assert!(tries(&store, &second).await.is_none(), "it is not released");
    assert_eq!(releases(&store, &first).await, Released::Released);
    tries(&store, &second).await.expect("nobody holds it");
    assert!(leases(&server).iter().all(|lease| !used.contains(lease)));
    assert!(Backend::force_release(&store, &"k".into()).await.expect("an answer"));
    assert!(!is_renewed(&store, &second).await);
    assert_eq!(releases(&store, &second).await, Released::NotHeld);
}

/// There, the id of a lease is derived from its only owner, and a release revokes it. Operators change values and delete
/// keys, but revoke no lease.
pub(super) async fn the_version_before_shares_the_queue() {
    const OWNER: &str = "80000000000000060000000000000009";
    let server = EtcdServer::start();
    let store = Etcd::connect(&server.url()).await.expect("the server runs");
    let key = format!("dlock/k/{OWNER}");
    let granted = server.ctl(&["lease", "grant", "60"]);
    let lease = granted.split_whitespace().nth(1).expect("its id").to_owned();
    let put = |lease: &str, key: &str, value: &str| {
        let _ = server.ctl(&["put", key, value, &format!("--lease={lease}")]);
    };
    put(&lease, &key, &format!("{OWNER} host,1,2,"));
    // A hold of the version before excludes ours, and our operators end it.
    let claim = claim("k");
    assert!(tries(&store, &claim).await.is_none());
    let holder = Backend::inspect(&store, &"k".into()).await.expect("an answer");
    assert_eq!(
        holder.and_then(|holder| holder.owner).map(|owner| owner.to_string()).as_deref(),
        Some(OWNER)
    );
    assert!(Backend::revoke(&store, &"k".into()).await.expect("an answer"));
    assert!(server.ctl(&["get", &key]).contains(&format!("~{OWNER} ")));
    assert!(tries(&store, &claim).await.is_none());
    let _ = server.ctl(&["lease", "revoke", &lease]);
    // And the other way round. First, the lease is one that has been idle.
    cycles_at_once(&store, 1).await;
    tries(&store, &claim).await.expect("nobody holds it");
    let ours = format!("dlock/k/{}", claim.owner);
    let stored = server.ctl(&["get", &ours, "--print-value-only"]);
    let lease = leases(&server).remove(0);
    put(&lease, &ours, &format!("~{}", stored.trim_end()));
    assert!(!is_renewed(&store, &claim).await);
    assert_eq!(releases(&store, &claim).await, Released::Released);
    assert_eq!(left(&server), (0, 0));
}

pub(super) async fn renewals_share_reads_but_not_answers() {
    const CLAIMS: usize = 64;
    let server = EtcdServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = format!("etcd://127.0.0.1:{}", proxy.port());
    let store = Etcd::connect(&url).await.expect("the server runs");
    let claims: Vec<_> = (0..CLAIMS).map(|at| claim(&format!("k{at}"))).collect();
    let granted = join_all(claims.iter().map(|claim| tries(&store, claim))).await;
    assert!(granted.iter().all(Option::is_some), "{granted:?}");
    let renew = || Backend::renew_many(&store, &claims).all(CLAIMS);
    let before = requests(&server);
    for answer in renew().await {
        assert!(matches!(answer, Ok(Renewal::Renewed { .. })), "{answer:?}");
    }
    let sent = requests(&server) - before;
    assert!(sent <= 64 + 24, "{sent} requests");
    // One key is deleted, and the lease of another one is revoked.
    assert!(Backend::force_release(&store, &claims[1].key).await.expect("an answer"));
    let shown = server.ctl(&["get", "dlock/k2/", "--prefix", "--write-out", "json"]);
    let (_, rest) = shown.split_once("\"lease\":").expect("it has a lease");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let lease: i64 = digits.parse().expect("a number");
    let _ = server.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    for (at, answer) in renew().await.into_iter().enumerate() {
        let is_held = matches!(answer, Ok(Renewal::Renewed { .. }));
        let is_lost = matches!(answer, Ok(Renewal::NotHeld));
        assert!(if at == 1 || at == 2 { is_lost } else { is_held }, "{at}: {answer:?}");
    }
    // Without an answer, nothing is known.
    proxy.stall_answers();
    for answer in renew().await {
        assert!(answer.is_err(), "{answer:?}");
    }
    proxy.resume();
}

/// Who is inside, and the last token that was.
#[derive(Default)]
struct Room {
    occupied: AtomicBool,
    last: Mutex<Option<FencingToken>>,
    entered: AtomicUsize,
}

/// Leaves the room when it is dropped, whether or not the body was completed.
struct Inside<'a>(&'a Room);

impl Room {
    fn enter(&self, token: FencingToken) -> Inside<'_> {
        assert!(!self.occupied.swap(true, Ordering::SeqCst), "two are inside");
        let last = self.last.lock().expect("no panic").replace(token);
        assert!(last < Some(token), "{token:?} after {last:?}");
        self.entered.fetch_add(1, Ordering::SeqCst);
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.occupied.store(false, Ordering::SeqCst);
    }
}

/// Acquires are dropped, answers are lost, and connections break, while leases pass from hand to hand.
pub(super) async fn nobody_enters_beside_another_while_the_network_fails() {
    const KEYS: usize = 3;
    const TASKS: usize = 8;
    let server = EtcdServer::start();
    let rooms: Arc<[Room; KEYS]> = Arc::default();
    let (mut proxies, mut tasks) = (vec![], vec![]);
    let ended = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let proxy = Proxy::start(server.port()).await;
        let registry = registry(&format!("etcd://127.0.0.1:{}", proxy.port())).await;
        proxies.push(proxy);
        for task in 0..TASKS {
            let (registry, rooms, ended) =
                (registry.clone(), Arc::clone(&rooms), Arc::clone(&ended));
            tasks.push(tokio::spawn(async move {
                for turn in 0.. {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let at = (turn + task) % KEYS;
                    // Some only try, and some do not wait for the answer.
                    let wait = Duration::from_millis([0, 5, 500][(turn / KEYS + task) % 3]);
                    let lock =
                        registry.lock(format!("k{at}")).ttl(LONG).wait(wait).fair(turn % 2 == 0);
                    let acquire = tokio::time::timeout(Duration::from_millis(700), lock.acquire());
                    if let Ok(Ok(guard)) = acquire.await {
                        let inside = rooms[at].enter(guard.fencing_token());
                        tokio::select! {
                            () = sleep(Duration::from_millis(2)) => {}
                            _ = guard.lost() => {}
                        }
                        drop(inside);
                        let _ = guard.release().await;
                    }
                }
            }));
        }
    }
    for round in 0..12_usize {
        sleep(Duration::from_millis(200)).await;
        let proxy = &mut proxies[round % 2];
        match round % 3 {
            0 => proxy.stall_answers(),
            1 => proxy.cut().await,
            _ => proxy.stall(),
        }
        sleep(Duration::from_millis(if round % 4 == 3 { 1_200 } else { 150 })).await;
        proxy.heal().await;
    }
    ended.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("no panic");
    }
    for room in rooms.iter() {
        let entered = room.entered.load(Ordering::SeqCst);
        assert!(entered > 20, "{entered} have been inside");
    }
    // What was abandoned is undone long before its lease ends.
    until("no key is left", || left(&server).0 == 0).await;
}
