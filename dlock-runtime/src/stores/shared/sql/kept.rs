//! Keeps the connections of a pool that dlock alone uses.
//!
//! A pool of sqlx pings each connection that is returned to it: a round trip that no statement shows. These connections
//! therefore stay taken from the pool, and wait here between two requests. The pool only opens them, with its present
//! credentials and hooks. A connection that has broken meanwhile is noticed when it is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections of a pool.
pub(crate) enum Connections<DB: Database> {
    /// Of one that others use as well.
    Shared(Pool<DB>),
    Kept(Arc<Kept<DB>>),
}

pub(crate) struct Kept<DB: Database> {
    pool: Pool<DB>,
    /// One permit for each connection that is in use. With one, the pool always has room for a connection.
    room: Arc<Semaphore>,
    /// The one that was used last is used first.
    idle: Mutex<Vec<Open<DB>>>,
}

struct Open<DB: Database> {
    connection: PoolConnection<DB>,
    since: Instant,
    used: Instant,
    ready: Ready,
    /// Has it been used before?
    is_reused: bool,
}

/// What has been done on a connection before it executes prepared statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Not,
    Prepared,
    /// They are prepared, and the [settings](super::store::Dialect::with_settings) are those of the whole session.
    PreparedAndSet,
}

/// A connection in use. It is closed unless it is explicitly given back: a request that was dropped midway, or that
/// failed below the protocol, leaves it in an unknown state.
pub(crate) struct Link<DB: Database> {
    open: Option<Open<DB>>,
    /// Where it is kept, and its permit.
    home: Option<(Arc<Kept<DB>>, OwnedSemaphorePermit)>,
}

impl<DB: Database> Connections<DB> {
    /// Those of a pool that nobody else uses.
    pub(crate) fn keep(pool: Pool<DB>) -> Self {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self::Kept(Arc::new(Kept { pool, room, idle: Mutex::default() }))
    }

    pub(crate) fn pool(&self) -> &Pool<DB> {
        match self {
            Self::Shared(pool) => pool,
            Self::Kept(kept) => &kept.pool,
        }
    }

    /// Does a connection stay the same between two requests, so that statements can be prepared on it?
    pub(crate) fn are_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// Takes a connection, and opens one if none is idle.
    pub(crate) async fn take(&self) -> Result<Link<DB>, sqlx::Error> {
        match self {
            Self::Shared(pool) => {
                Ok(Link { open: Some(Open::new(pool.acquire().await?)), home: None })
            }
            Self::Kept(kept) => {
                let limit = kept.pool.options().get_acquire_timeout();
                let room = tokio::time::timeout(limit, Arc::clone(&kept.room).acquire_owned());
                let room = room.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
                let room = room.map_err(|_| sqlx::Error::PoolClosed)?;
                let open = match kept.take_idle() {
                    Some(open) => open,
                    None => Open::new(kept.pool.acquire().await?),
                };
                Ok(Link { open: Some(open), home: Some((Arc::clone(kept), room)) })
            }
        }
    }

    /// Takes a connection that is idle.
    pub(crate) fn take_idle(&self) -> Option<Link<DB>> {
        let Self::Kept(kept) = self else { return None };
        let room = Arc::clone(&kept.room).try_acquire_owned().ok()?;
        Some(Link { open: Some(kept.take_idle()?), home: Some((Arc::clone(kept), room)) })
    }
}

impl<DB: Database> Kept<DB> {
    fn idle(&self) -> MutexGuard<'_, Vec<Open<DB>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last. Closes those that have been idle for too long.
    fn take_idle(&self) -> Option<Open<DB>> {
        let mut idle = self.idle();
        if let Some(longest) = self.pool.options().get_idle_timeout() {
            let stale = idle.partition_point(|open| open.used.elapsed() > longest);
            idle.drain(..stale).for_each(Open::close);
        }
        idle.pop()
    }

    fn keep(&self, mut open: Open<DB>) {
        let longest = self.pool.options().get_max_lifetime();
        if self.pool.is_closed() || longest.is_some_and(|longest| open.since.elapsed() > longest) {
            open.close();
        } else {
            open.used = Instant::now();
            open.is_reused = true;
            self.idle().push(open);
        }
    }
}

impl<DB: Database> Drop for Kept<DB> {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        idle.drain(..).for_each(Open::close);
    }
}

impl<DB: Database> Open<DB> {
    fn new(connection: PoolConnection<DB>) -> Self {
        let now = Instant::now();
        Self { connection, since: now, used: now, ready: Ready::Not, is_reused: false }
    }

    /// Closes it at once, without a goodbye to a server that may not respond.
    fn close(self) {
        drop(self.connection.detach());
    }
}

impl<DB: Database> Link<DB> {
    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        &mut self.open.as_mut().expect("the connection is only taken out at the end").connection
    }

    pub(crate) fn ready(&self) -> Ready {
        self.open.as_ref().map_or(Ready::Not, |open| open.ready)
    }

    /// Are the statements prepared on this connection?
    pub(crate) fn is_prepared(&self) -> bool {
        self.ready() != Ready::Not
    }

    /// Was the connection opened for this use? Many are closed again after one request.
    pub(crate) fn is_new(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.is_reused)
    }

    pub(crate) fn set_ready(&mut self, ready: Ready) {
        if let Some(open) = &mut self.open {
            open.ready = ready;
        }
    }

    /// Gives back a connection whose last request was answered.
    pub(crate) fn give_back(mut self) {
        match (self.open.take(), self.home.take()) {
            (Some(open), Some((kept, room))) => {
                kept.keep(open);
                // Last, so that whoever takes it finds the connection.
                drop(room);
            }
            (open, _) => drop(open.map(|open| open.connection)),
        }
    }
}

impl<DB: Database> Drop for Link<DB> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.close();
        }
        // Now the pool has room for another one.
        drop(self.home.take());
    }
}
