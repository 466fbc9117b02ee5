//! The line of those that wait for a lock with plain claims. A release hands the lock over to the first one.
//!
//! A waiter's process listens on a channel of its own. The release stores `>` and the waiter's owner id as the owner of
//! the lease, for [`RESERVED`] at most, and notifies that channel alone. The waiter then acquires the lock as any other.
//! Its token is drawn by that acquire, so a reservation grants nothing by itself.
//!
//! The row of a lease says whether somebody is in line for it: `released` is [`MARKED`]. A release that finds nobody in
//! line, or others who want the lock too, frees it for all and notifies all.

mod statements;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row as _};

pub(super) use self::statements::{LineStatements, MARKED};
use super::recent_keys::RecentKeys;
use crate::backend::Claim;
use crate::key::{KeyMap, LockKey};
use crate::owner::OwnerId;
use crate::stores::shared::sql::store::{Dialect as _, Store};
use crate::stores::shared::wakeups::Topics;

/// How long a lock is reserved for a waiter.
const RESERVED: Duration = Duration::from_millis(400);

/// A waiter that has not asked for this long counts as gone. Waiters ask again within a second.
const GONE: Duration = Duration::from_secs(2);

const FILE: &str = "src/stores/postgres/line.sql";

/// How often the table is created, in case other processes create it at the same moment.
const TRIES: u32 = 3;

/// What a process knows of the lines it stands in.
pub(super) struct Line {
    pub(super) sql: LineStatements,
    /// Where this process is notified of the keys that are handed over to it.
    pub(super) channel: String,
    topics: Arc<Topics>,
    /// Keys that were handed over to this process, or for which it waited, a short while ago.
    contended: RecentKeys,
    /// The role may not use the table after all.
    is_refused: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// How many watches wait for a hand-over of each key.
    watched: KeyMap<usize>,
    /// Those that may be in line.
    joined: HashSet<OwnerId>,
}

impl Line {
    /// The line in the table beside this one. `None` if there is none and the role may not create it, or may not use it.
    pub(super) async fn open(
        leases: &str,
        store: &Store<Postgres>,
        topics: Arc<Topics>,
    ) -> Option<Arc<Self>> {
        let line = Arc::new(Self::new(leases, topics));
        let sql = &line.sql;
        for _ in 0..TRIES {
            match store.try_run(&sql.probe()).await.map(|reply| may_use(reply.row())) {
                Ok(Some(true)) => return Some(line),
                Ok(Some(false)) => break,
                Ok(None) => {}
                // The next request will say what is wrong with the server.
                Err(_) => return None,
            }
            // If another process creates it at the same moment, this fails, and the table is there.
            let _ = store.try_run(&sql.schema()).await;
        }
        tracing::info!(
            target: "dlock",
            "postgres: this role can neither use nor create the table `{}`, so a release notifies all waiters; `{FILE}` of dlock-runtime creates it",
            sql.table()
        );
        None
    }

    pub(super) fn new(leases: &str, topics: Arc<Topics>) -> Self {
        Self {
            sql: LineStatements::new(leases),
            channel: format!("dlock_{}", OwnerId::random()),
            topics,
            contended: RecentKeys::default(),
            is_refused: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// The answer, unless the server refused the statement because the role may not use the table.
    pub(super) fn allowed<T>(
        &self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<Option<T>, sqlx::Error> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if Postgres::is_permission_denied(&error) => {
                self.is_refused.store(true, Ordering::Relaxed);
                tracing::info!(target: "dlock", %error, "postgres: a release notifies all waiters; `{FILE}` of dlock-runtime lists the required privileges");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    /// Begins to wait for a hand-over of this key.
    pub(super) fn watch(self: &Arc<Self>, key: &LockKey) -> Place {
        *self.waiting().watched.entry(key.clone()).or_default() += 1;
        Place { line: Arc::clone(self), key: key.clone() }
    }

    /// Is this a claim that stands in line while the key is held? Only if its process is notified of a hand-over.
    pub(super) fn is_for(&self, claim: &Claim) -> bool {
        claim.is_plain()
            && !claim.wait_left.is_zero()
            && self.is_usable()
            && self.waiting().watched.contains_key(&claim.key)
            && self.topics.are_live()
    }

    /// Notes that this claim is about to join the line. False if it may be in line already.
    pub(super) fn joins(&self, claim: &Claim) -> bool {
        self.contended.note(&claim.key);
        self.waiting().joined.insert(claim.owner)
    }

    /// Notes that this owner is no longer in line.
    pub(super) fn left(&self, owner: &OwnerId) {
        self.waiting().joined.remove(owner);
    }

    pub(super) fn may_have(&self, owner: &OwnerId) -> bool {
        self.waiting().joined.contains(owner)
    }

    /// Is somebody likely to be in line for this key?
    pub(super) fn is_likely(&self, key: &LockKey) -> bool {
        self.contended.has(key)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// May the role use the table? `None` if there is none.
fn may_use(row: Option<&PgRow>) -> Option<bool> {
    row?.try_get::<Option<bool>, _>(0).ok()?
}

/// A watch that waits for a hand-over.
pub(super) struct Place {
    line: Arc<Line>,
    key: LockKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        let watched = &mut self.line.waiting().watched;
        if let Some(watches) = watched.get_mut(&self.key) {
            *watches -= 1;
            if *watches == 0 {
                watched.remove(&self.key);
            }
        }
    }
}
