//! A backend as another crate would write it: plain `async fn`s over its own store, checked by the
//! public suite.
//!
//! The store is a map behind an asynchronous mutex. In each of these methods, a real backend would
//! send its server one atomic request.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dlock_runtime::backend::{
    Answer, AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released,
    Renewal, Watch, validity_of,
};
use dlock_runtime::testing::Suite;
use dlock_runtime::{BackendError, ClientInfo, FencingToken, LockKey, OwnerId, Registry};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

#[derive(Clone, Default)]
struct MapStore {
    table: Arc<Mutex<Table>>,
    released: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct Table {
    leases: HashMap<LockKey, Lease>,
    /// Owner ids whose acquire was abandoned. A real store forgets them after a ttl.
    tombstones: HashSet<OwnerId>,
    last_token: u64,
}

struct Lease {
    /// `None` while a released key stays locked for the rest of a `min_hold`.
    owner: Option<OwnerId>,
    token: FencingToken,
    ends: Instant,
    revoked: bool,
    client_info: ClientInfo,
}

impl Lease {
    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    fn holder(&self) -> Holder {
        Holder::new(self.owner, self.token, self.left())
            .with_client_info(Some(self.client_info.clone()))
            .with_revoked(self.revoked)
    }
}

impl Table {
    fn live(&mut self, key: &LockKey) -> Option<&mut Lease> {
        self.leases.get_mut(key).filter(|lease| lease.ends > Instant::now())
    }

    fn owned_by(&mut self, claim: &Claim) -> Option<&mut Lease> {
        self.live(&claim.key).filter(|lease| lease.owner == Some(claim.owner))
    }
}

impl AsyncBackend for MapStore {
    fn kind(&self) -> &'static str {
        "map"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LEASES.with_shared_by_processes(false)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        let mut table = self.table.lock().await;
        let ends = Instant::now() + claim.ttl;
        if table.tombstones.contains(&claim.owner) {
            return Ok(Attempt::busy(None));
        }
        // The same claim again, after a lost reply: the same token and a full ttl.
        if let Some(lease) = table.owned_by(claim) {
            lease.ends = ends;
            return Ok(Attempt::granted(lease.token, validity_of(claim.ttl)));
        }
        if let Some(lease) = table.live(&claim.key) {
            return Ok(Attempt::busy(Some(lease.left())));
        }
        table.last_token += 1;
        let token = FencingToken::new(table.last_token);
        let client_info = claim.client_info.clone();
        let lease = Lease { owner: Some(claim.owner), token, ends, revoked: false, client_info };
        table.leases.insert(claim.key.clone(), lease);
        Ok(Attempt::granted(token, validity_of(claim.ttl)))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let mut table = self.table.lock().await;
        match table.owned_by(claim).filter(|lease| !lease.revoked) {
            Some(lease) => {
                lease.ends = Instant::now() + claim.ttl;
                Ok(Renewal::Renewed { validity: validity_of(claim.ttl) })
            }
            None => Ok(Renewal::NotHeld),
        }
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        let mut table = self.table.lock().await;
        if release.late_acquire {
            table.tombstones.insert(claim.owner);
        }
        let Some(lease) = table.owned_by(claim) else { return Ok(Released::NotHeld) };
        if let Some(rest) = release.keep_for {
            (lease.owner, lease.ends) = (None, Instant::now() + rest);
        } else {
            table.leases.remove(&claim.key);
            self.released.send_replace(());
        }
        Ok(Released::Released)
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Ok(Box::new(AnyRelease(self.released.subscribe())))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        Ok(self.table.lock().await.live(key).map(|lease| lease.holder()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let table = self.table.lock().await;
        let held = table
            .leases
            .iter()
            .filter(|(key, lease)| key.as_str().starts_with(prefix) && lease.ends > Instant::now());
        let states =
            held.map(|(key, lease)| LockState::new(key.clone(), vec![lease.holder()], vec![]));
        let mut states: Vec<_> = states.collect();
        states.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(states)
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let mut table = self.table.lock().await;
        let lease = table.live(key);
        Ok(lease.map(|lease| lease.revoked = true).is_some())
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let mut table = self.table.lock().await;
        let held = table.live(key).is_some();
        table.leases.remove(key);
        self.released.send_replace(());
        Ok(held)
    }
}

/// The release of any key is a hint to retry.
struct AnyRelease(watch::Receiver<()>);

impl Watch for AnyRelease {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_plain_async_functions_passes_the_suite() {
    let store = MapStore::default();
    let report = Suite::new(move || std::future::ready(Ok(store.clone()))).run().await;
    report.assert_passed();
    assert!(report.checked() >= 74, "only {} rules", report.checked());
}

#[tokio::test]
async fn the_backend_serves_a_registry() {
    let registry = Registry::builder().backend("mine", MapStore::default()).build();
    let registry = registry.expect("a registry");
    let guard = registry.lock("product:1").acquire().await.expect("free");
    let other = registry.lock("product:1").wait(Duration::ZERO).acquire().await;
    assert!(other.is_err_and(|error| error.is_busy()));
    guard.release().await.expect("held to the end");
}
