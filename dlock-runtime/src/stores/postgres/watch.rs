//! Waiting for the release of a key.

use std::time::Duration;

use super::{Postgres, dialect};
use crate::backend::{Answer, Watch};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::sql::poll;
use crate::stores::shared::sql_leases::connections::Lane;
use crate::stores::shared::wakeups::Interest;

/// How long a waiter lets the listening connection come up before it polls.
const LISTENING: Duration = Duration::from_millis(300);

/// Waits for a notice of the key; polls while none can come.
pub(super) struct RowWatch {
    postgres: Postgres,
    key: LockKey,
    interest: Interest,
    /// Does the row say that its release is to be announced?
    announced: bool,
    /// Who held the key at the last look.
    seen: Vec<u64>,
}

impl RowWatch {
    /// Sees every release from now on.
    pub(super) async fn begin(postgres: Postgres, key: &LockKey) -> Result<Self, BackendError> {
        let interest = postgres.notices.of(dialect::stored(key));
        let key = key.clone();
        let mut watch = Self { postgres, key, interest, announced: false, seen: vec![] };
        if !watch.postgres.notices.are_known_not_to_come() {
            let _ = tokio::time::timeout(LISTENING, watch.interest.live()).await;
        }
        if watch.interest.is_live() {
            watch.announced = watch.want().await?;
        } else {
            watch.seen = watch.postgres.leases.holders(&watch.key).await?;
        }
        Ok(watch)
    }

    /// Requests that the key's release be announced; false if nobody holds it.
    async fn want(&self) -> Result<bool, BackendError> {
        let leases = &self.postgres.leases;
        let want = leases.sql.want(&self.key);
        let reply = leases.store.run_repeatable(Lane::Acquires, &want).await?;
        Ok(reply.row().is_some())
    }

    /// A release clears the row's mark and is announced. A waiter that goes on waiting marks the row again first, and
    /// sees then whether another release came in between.
    async fn wait(&mut self) -> Result<(), BackendError> {
        if !self.interest.is_live() {
            let Self { postgres, key, interest, seen, .. } = self;
            tokio::select! {
                () = poll::until_a_holder_leaves(seen, || postgres.leases.holders(key)) => {}
                () = interest.news() => {}
            }
            return Ok(());
        }
        if !self.announced {
            self.announced = self.want().await?;
            if !self.announced {
                return Ok(());
            }
        }
        self.interest.news().await;
        self.announced = false;
        Ok(())
    }
}

impl Watch for RowWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            if self.wait().await.is_err() {
                // The server cannot be asked now. The watch stays silent, and the engine's own retries go on.
                std::future::pending::<()>().await;
            }
        })
    }
}
