//! Waiting for the release of a key.

use std::time::Duration;

use super::line::Place;
use super::{Postgres, dialect};
use crate::backend::{Answer, Claim, Watch};
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
    /// The claim that it is for stands in line, if it can, and the key is handed over to it.
    place: Option<Place>,
}

impl RowWatch {
    /// Sees every release from now on.
    pub(super) async fn begin(postgres: Postgres, key: &LockKey) -> Result<Self, BackendError> {
        let mut watch = Self::listen(postgres, key).await;
        watch.look().await?;
        Ok(watch)
    }

    /// The same for this claim. If it is one that stands in line, it sees only what is handed over to it, and releases
    /// that are announced to all.
    pub(super) async fn begin_for(postgres: Postgres, claim: &Claim) -> Result<Self, BackendError> {
        let mut watch = Self::listen(postgres, &claim.key).await;
        let line = watch.postgres.leases.sql.line.as_ref();
        watch.place = line
            .filter(|line| claim.is_plain() && line.is_usable() && watch.interest.is_live())
            .map(|line| line.watch(&claim.key));
        if watch.place.is_none() {
            watch.look().await?;
        }
        Ok(watch)
    }

    async fn listen(postgres: Postgres, key: &LockKey) -> Self {
        let interest = postgres.notices.of(dialect::stored(key));
        let key = key.clone();
        let mut watch =
            Self { postgres, key, interest, announced: false, seen: vec![], place: None };
        if !watch.postgres.notices.are_known_not_to_come() {
            let _ = tokio::time::timeout(LISTENING, watch.interest.live()).await;
        }
        watch
    }

    async fn look(&mut self) -> Result<(), BackendError> {
        if self.interest.is_live() {
            self.announced = self.want().await?;
        } else {
            self.seen = self.postgres.leases.holders(&self.key).await?;
        }
        Ok(())
    }

    /// Requests that the key's release be announced; false if nobody holds it.
    async fn want(&self) -> Result<bool, BackendError> {
        let leases = &self.postgres.leases;
        let want = leases.sql.want(&self.key);
        let reply = leases.store.run_repeatable(Lane::Acquires, &want).await?;
        Ok(reply.row().is_some())
    }

    /// Waits without notices. Those in line would hand the key over to each other, so it asks that the key be free for all.
    async fn poll(&mut self) -> Result<(), BackendError> {
        self.postgres.notices.ensure_task();
        let Self { postgres, key, interest, seen, .. } = self;
        let leases = &postgres.leases;
        leases.store.run_repeatable(Lane::Acquires, &leases.sql.want_beside_line(key)).await?;
        tokio::select! {
            () = poll::until_a_holder_leaves(seen, || leases.holders(key)) => {}
            () = interest.news() => {}
        }
        Ok(())
    }

    /// A release clears the row's mark and is announced. A waiter that goes on waiting marks the row again first, and
    /// sees then whether another release came in between.
    async fn wait(&mut self) -> Result<(), BackendError> {
        if !self.interest.is_live() {
            return self.poll().await;
        }
        if self.place.as_ref().is_some_and(Place::is_in_line) {
            self.interest.news().await;
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
