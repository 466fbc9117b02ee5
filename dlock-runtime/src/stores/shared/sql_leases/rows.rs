//! The rows of the table, for one operation.

use super::LeaseDialect;
use super::connections::{Lane, LeaseStore};
use super::leases::Leases;
use crate::backend::Claim;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::row::{Change, LeaseRow, NewRow, Purpose, RowStore};
use crate::stores::shared::doubt::Doubt;

/// The rows, and whether an acquire of this operation may still be executed after its answer.
pub(crate) struct Rows<'a, S: LeaseDialect> {
    pub(crate) leases: &'a Leases<S>,
    pub(crate) doubt: Doubt,
}

impl<'a, S: LeaseDialect> Rows<'a, S> {
    pub(crate) fn of(leases: &'a Leases<S>) -> Self {
        Self { leases, doubt: Doubt::default() }
    }

    pub(crate) fn sql(&self) -> &'a S {
        &self.leases.sql
    }

    pub(crate) fn store(&self) -> &'a LeaseStore<S::Database> {
        &self.leases.store
    }
}

impl<S: LeaseDialect> RowStore for Rows<'_, S> {
    async fn look(
        &self,
        claim: &Claim,
        purpose: Purpose,
    ) -> Result<Option<LeaseRow>, BackendError> {
        let look = self.sql().look(claim);
        let reply = self.store().run_repeatable(purpose.into(), &look).await?;
        reply.row().map(S::looked_at).transpose()
    }

    async fn look_at_all(&self, claims: &[Claim]) -> Result<Vec<Option<LeaseRow>>, BackendError> {
        let looks: Vec<_> = claims.iter().map(|claim| self.sql().look(claim)).collect();
        let reply = self.store().run_repeatable(Lane::Acquires, &looks.join("; ")).await?;
        reply.rows.iter().map(|rows| rows.first().map(S::looked_at).transpose()).collect()
    }

    async fn make(&self, key: &LockKey) -> Result<(), BackendError> {
        self.store().run_repeatable(Lane::Acquires, &self.sql().make(key)).await.map(|_| ())
    }

    async fn exchange(
        &self,
        claim: &Claim,
        old: &LeaseRow,
        new: &NewRow,
        purpose: Purpose,
    ) -> Result<bool, BackendError> {
        let statement = self.sql().exchange(claim, old, new, purpose);
        let reply = match purpose {
            Purpose::Acquire => self.store().run_acquire(&self.doubt, &statement).await?,
            Purpose::Renew => self.store().run_repeatable(purpose.into(), &statement).await?,
            Purpose::Release => self.store().run(purpose.into(), &statement).await?,
        };
        Ok(S::is_changed(&reply))
    }

    async fn exchange_all(&self, changes: &[Change<'_>]) -> Result<bool, BackendError> {
        S::exchange_all(self, changes).await
    }
}
