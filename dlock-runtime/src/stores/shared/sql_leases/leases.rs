//! The operations on the leases in one table.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Pool;

use super::LeaseDialect;
use super::connections::{Lane, LeaseStore};
use super::options::{LeaseOptions, of_url};
use super::rows::Rows;
use super::together::{self, Acquire, Found, Renew, Together};
use crate::backend::{
    Attempt, Claim, Holder, LockState, Mode, Release, Released, Renewal, SetAttempt, validity_of,
};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{self, Purpose, RowStore as _};
use crate::stores::shared::doubt::Doubt;
use crate::stores::shared::sql;
use crate::stores::shared::sql::store::Dialect;
use crate::stores::shared::sql::tables::Table;
use crate::stores::shared::sweeper::Sweeping;

/// One table of leases, and the connections to it.
pub(crate) struct Leases<S: LeaseDialect> {
    pub(crate) store: Arc<LeaseStore<S::Database>>,
    pub(crate) sql: Arc<S>,
    acquires: Together<S, Acquire>,
    renewals: Together<S, Renew>,
    releases: Together<S, together::Release>,
    sweeping: Sweeping,
}

impl<S: LeaseDialect> Leases<S> {
    /// Opens a pool of connections to the server of this URL.
    pub(crate) async fn connect(options: LeaseOptions, url: &str) -> Result<Self, BackendError> {
        let server = of_url::<S>(url)?;
        let address = S::address(&server);
        let (connections, limit) = (options.connections, options.limit);
        let pool = sql::store::connect::<S::Database>(server, &address, connections, limit).await?;
        Self::over(options, pool, true).await
    }

    /// Uses a pool; `is_own` says that the service does no other work on it. Creates the table if it is missing.
    pub(crate) async fn over(
        options: LeaseOptions,
        pool: Pool<S::Database>,
        is_own: bool,
    ) -> Result<Self, BackendError> {
        let name = options.table;
        sql::tables::check_name(S::Database::KIND, &name)?;
        let mut store = LeaseStore::new(pool, options.limit, is_own);
        let table = Table {
            name: &name,
            file: S::FILE,
            statements: S::SCHEMA.replace("dlock_leases", &name),
            probe: format!("SELECT {} FROM {name} WHERE lock_key = ''", S::COLUMNS),
        };
        table.ensure(store.plain()).await?;
        sql::tables::refuse_later_version(&name, store.plain()).await?;
        let sql = Arc::new(S::open(name.clone(), store.plain()).await);
        store.prepare(&sql.prepared());
        let store = Arc::new(store);
        Ok(Self {
            acquires: Together::new(&store, &sql),
            renewals: Together::new(&store, &sql),
            releases: Together::new(&store, &sql),
            store,
            sql,
            sweeping: Sweeping::default(),
        })
    }

    pub(crate) async fn try_acquire(
        self: &Arc<Self>,
        claim: &Claim,
    ) -> Result<Attempt, BackendError> {
        self.sweep_if_due();
        let rows = Rows::of(self);
        let answer = acquire(&rows, claim).await;
        rows.doubt.mark(answer, Attempt::with_in_doubt)
    }

    pub(crate) async fn try_acquire_set(
        self: &Arc<Self>,
        claims: &[Claim],
    ) -> Result<SetAttempt, BackendError> {
        self.sweep_if_due();
        let rows = Rows::of(self);
        let answer = row::acquire_set(&rows, claims).await;
        rows.doubt.mark(answer, SetAttempt::with_in_doubt)
    }

    pub(crate) async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        if claim.mode != Mode::Exclusive {
            return row::renew(&Rows::of(self), claim).await;
        }
        let is_renewed = self.renewals.run(claim, &Doubt::default()).await?;
        Ok(if is_renewed {
            Renewal::Renewed { validity: validity_of(claim.ttl) }
        } else {
            Renewal::NotHeld
        })
    }

    pub(crate) async fn release(
        &self,
        claim: &Claim,
        release: Release,
    ) -> Result<Released, BackendError> {
        // From then on, no other release reserves the lock for it.
        let may_be_reserved = self.sql.leave(&self.store, claim).await;
        let released = self.end(claim, release, may_be_reserved).await?;
        if may_be_reserved {
            if release.late_acquire {
                // A request that was still on its way may have joined again, before the tombstone.
                self.sql.leave(&self.store, claim).await;
            }
            self.sql.forget(claim);
        }
        Ok(released)
    }

    /// Ends a lease, and what is reserved for the claim.
    async fn end(
        &self,
        claim: &Claim,
        release: Release,
        may_be_reserved: bool,
    ) -> Result<Released, BackendError> {
        let is_alone = !claim.may_be_in_a_group() || may_be_reserved;
        let is_plain = release.keep_for.is_none() && !release.late_acquire;
        if is_plain && is_alone {
            if self.releases.run(claim, &Doubt::default()).await? {
                return Ok(Released::Released);
            }
            return row::release(&Rows::of(self), claim, release).await;
        }
        // For a member of a group the statement only leaves the tombstone.
        if is_alone || release.late_acquire {
            let statement = self.sql.release(claim, release);
            let reply = self.store.run(Lane::Holds, &statement).await?;
            if is_alone && S::is_released(&reply, release) {
                return Ok(Released::Released);
            }
        }
        // It may be in the group, is no longer held, or was revoked.
        row::release(&Rows::of(self), claim, release).await
    }

    pub(crate) async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let claim = nobodys(key);
        let row = Rows::of(self).look(&claim, Purpose::Acquire).await?;
        Ok(row.and_then(|row| row.holder()))
    }

    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let list = self.sql.list(&prefix.into());
        let reply = self.store.run_repeatable(Lane::Acquires, &list).await?;
        let states = reply.rows.iter().flatten();
        let states = states.map(|row| Ok(S::looked_at(row)?.state(S::listed_key(row)?)));
        let states = states.collect::<Result<Vec<_>, BackendError>>()?;
        Ok(states.into_iter().filter(|state| !state.is_idle()).collect())
    }

    pub(crate) async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        row::revoke(&Rows::of(self), key).await
    }

    pub(crate) async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        row::force_release(&Rows::of(self), key).await
    }

    pub(crate) fn table(&self) -> &str {
        self.sql.table()
    }

    /// The tokens of the key's holders.
    pub(crate) async fn holders(&self, key: &LockKey) -> Result<Vec<u64>, BackendError> {
        row::holders(&Rows::of(self), &nobodys(key)).await
    }

    fn sweep_if_due(self: &Arc<Self>) {
        self.sweeping.start_if_due(|| {
            let leases = Arc::downgrade(self);
            async move {
                match leases.upgrade() {
                    Some(leases) => S::sweep(&leases).await,
                    None => Ok(()),
                }
            }
        });
    }
}

async fn acquire<S: LeaseDialect>(
    rows: &Rows<'_, S>,
    claim: &Claim,
) -> Result<Attempt, BackendError> {
    if claim.is_plain() {
        match rows.leases.acquires.run(claim, &rows.doubt).await? {
            Found::Free(last) => {
                return Ok(Attempt::granted_up_to(last, claim, validity_of(claim.ttl)));
            }
            Found::Held(left) => return Ok(Attempt::busy(Some(left))),
            #[cfg(feature = "postgres")]
            Found::InLine(left) => return Ok(Attempt::queued(Some(left))),
            Found::Unclear => {}
        }
    }
    row::acquire(rows, claim).await
}

/// For a read of the key.
fn nobodys(key: &LockKey) -> Claim {
    Claim::new(key.clone(), Duration::ZERO)
}
