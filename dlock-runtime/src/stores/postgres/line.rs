//! The line of those that wait for a lock with plain claims. A release hands the lock over to the first one.
//!
//! A waiter's process listens on a channel of its own. The release stores `>` and the waiter's owner id as the owner of
//! the lease, for [`RESERVED`] at most, and notifies that channel alone. The waiter then acquires the lock as any other.
//! Its token is drawn by that acquire, so a reservation grants nothing by itself.
//!
//! The row of a lease says whether somebody is in line for it: `released` is [`MARKED`]. A release that finds nobody in
//! line, or others who want the lock too, frees it for all and notifies all.

mod statements;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row as _};

pub(super) use self::statements::{LineStatements, MARKED};
use super::recent_keys::RecentKeys;
use crate::backend::Claim;
use crate::key::{KeyMap, LockKey};
use crate::owner::OwnerId;
use crate::stores::shared::sql::Reply;
use crate::stores::shared::sql::store::{Dialect as _, Message, Store};
use crate::stores::shared::sql_leases::connections::{Lane, LeaseStore};
use crate::stores::shared::wakeups::Topics;

/// How long a lock is reserved for a waiter.
const RESERVED: Duration = Duration::from_millis(400);

/// A waiter that has not asked for this long counts as gone. Waiters ask again within a second.
const GONE: Duration = Duration::from_secs(2);

/// How long the server may take for a statement that nothing depends on. It may have to wait for a release.
const LIMIT: Duration = Duration::from_millis(500);

/// A claim that has not asked for this long is not in line any more, even if nobody has released it.
const FORGOTTEN: Duration = Duration::from_mins(1);

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
    /// The keys that watches of this process wait for.
    watched: KeyMap<Watched>,
    /// Those that may be in line, and when they last asked.
    joined: HashMap<OwnerId, Instant>,
    /// The number of `joined` at which those that are long gone are removed.
    sweep_at: usize,
}

#[derive(Default)]
struct Watched {
    watches: usize,
    /// Was the last claim that asked put in line?
    is_in_line: bool,
}

impl Line {
    /// The line in the table beside this one. `None` if there is none and the role may not create it, or may not use it.
    pub(super) async fn open(
        leases: &str,
        store: &Store<Postgres>,
        topics: Arc<Topics>,
    ) -> Option<Arc<Self>> {
        // In the schema of the leases: everybody who uses them has to find the same line.
        let schema = store.try_run(&LineStatements::schema_of(leases)).await.ok()?;
        let schema: String = schema.row()?.try_get(0).ok()?;
        let line = Arc::new(Self::new(leases, &schema, topics));
        let sql = &line.sql;
        let mut problem = String::new();
        for _ in 0..TRIES {
            match store.try_run(&sql.probe()).await {
                Ok(reply) if may_use(reply.row()) => return Some(line),
                Ok(_) => {
                    "the role lacks a privilege".clone_into(&mut problem);
                    break;
                }
                Err(error) => problem = error.to_string(),
            }
            // If another process creates it at the same moment, this fails, and the table is there.
            let _ = store.try_run(&sql.schema()).await;
        }
        tracing::info!(
            target: "dlock",
            "postgres: the table `{}` cannot be used ({problem}), so a release notifies all waiters; `{FILE}` of dlock-runtime creates it",
            sql.table()
        );
        None
    }

    pub(super) fn new(leases: &str, schema: &str, topics: Arc<Topics>) -> Self {
        Self {
            sql: LineStatements::new(leases, schema),
            channel: format!("dlock_{}", OwnerId::random()),
            topics,
            contended: RecentKeys::default(),
            is_refused: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// The answer, unless the server refused the statement because the table cannot be used. From then on it is not used.
    pub(super) fn allowed<T>(
        &self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<Option<T>, sqlx::Error> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_refusal(&error) => {
                self.is_refused.store(true, Ordering::Relaxed);
                tracing::info!(target: "dlock", %error, "postgres: a release notifies all waiters; `{FILE}` of dlock-runtime lists the required privileges");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a statement that nothing depends on. `None` if it failed.
    pub(super) async fn run(
        &self,
        store: &LeaseStore<Postgres>,
        lane: Lane,
        statement: &str,
    ) -> Option<Reply<Postgres>> {
        if !self.is_usable() {
            return None;
        }
        let bounded = Postgres::bounded(statement, store.limit().min(LIMIT));
        let message = Message::Statements(&bounded, 2);
        let reply = store.send(lane, message, store.repeatable(lane)).await;
        let mut reply = self.allowed(reply).ok()??;
        reply.rows.remove(0);
        Some(reply)
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    /// Begins to wait for a hand-over of this key.
    pub(super) fn watch(self: &Arc<Self>, key: &LockKey) -> Place {
        self.waiting().watched.entry(key.clone()).or_default().watches += 1;
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
        let mut waiting = self.waiting();
        if waiting.joined.len() >= waiting.sweep_at {
            // Usually a release removes them. If the runtime of a caller is gone, nobody releases anything.
            waiting.joined.retain(|_, asked| asked.elapsed() < FORGOTTEN);
            waiting.sweep_at = 2 * waiting.joined.len() + 64;
        }
        waiting.joined.insert(claim.owner, Instant::now()).is_none()
    }

    /// Notes that a claim in line has asked again.
    pub(super) fn keeps(&self, claim: &Claim) {
        if let Some(asked) = self.waiting().joined.get_mut(&claim.owner) {
            *asked = Instant::now();
        }
    }

    /// Notes whether the claim that just asked for this key is in line.
    pub(super) fn note_answer(&self, key: &LockKey, is_in_line: bool) {
        if let Some(watched) = self.waiting().watched.get_mut(key) {
            watched.is_in_line = is_in_line;
        }
    }

    /// Notes that this owner is no longer in line.
    pub(super) fn left(&self, owner: &OwnerId) {
        self.waiting().joined.remove(owner);
    }

    pub(super) fn may_have(&self, owner: &OwnerId) -> bool {
        self.waiting().joined.contains_key(owner)
    }

    /// Is somebody likely to be in line for this key?
    pub(super) fn is_likely(&self, key: &LockKey) -> bool {
        self.contended.has(key)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// May the role use the table?
fn may_use(row: Option<&PgRow>) -> bool {
    row.is_some_and(|row| matches!(row.try_get::<Option<bool>, _>(0), Ok(Some(true))))
}

/// Is the table gone, or may the role not use it?
fn is_refusal(error: &sqlx::Error) -> bool {
    Postgres::is_permission_denied(error) || Postgres::is_table_missing(error)
}

/// A watch that waits for a hand-over.
pub(super) struct Place {
    line: Arc<Line>,
    key: LockKey,
}

impl Place {
    /// Is a claim of this process in line for the key, so that it is notified of its turn?
    pub(super) fn is_in_line(&self) -> bool {
        let is_in_line = |watched: &Watched| watched.is_in_line;
        self.line.is_usable() && self.line.waiting().watched.get(&self.key).is_some_and(is_in_line)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let watched = &mut self.line.waiting().watched;
        if let Some(one) = watched.get_mut(&self.key) {
            one.watches -= 1;
            if one.watches == 0 {
                watched.remove(&self.key);
            }
        }
    }
}
