//! Connections that tasks take in turn. sqlx's own pool asks the server for a sign of life whenever one is
//! returned, which a limit must not.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A fixed number of connections.
pub struct Connections<C> {
    idle: Arc<Mutex<Vec<C>>>,
    free: Arc<Semaphore>,
}

impl<C> Clone for Connections<C> {
    fn clone(&self) -> Self {
        Self { idle: Arc::clone(&self.idle), free: Arc::clone(&self.free) }
    }
}

impl<C> Connections<C> {
    /// These connections.
    pub fn new(connections: Vec<C>) -> Self {
        let free = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Arc::new(Mutex::new(connections)), free }
    }

    /// Waits for one of them.
    pub async fn take(&self) -> Taken<C> {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("it is never closed");
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Taken { connection, idle: Arc::clone(&self.idle), _permit: permit }
    }
}

/// A connection that goes back when it is dropped.
pub struct Taken<C> {
    connection: Option<C>,
    idle: Arc<Mutex<Vec<C>>>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Deref for Taken<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.connection.as_ref().expect("there until it is dropped")
    }
}

impl<C> DerefMut for Taken<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.connection.as_mut().expect("there until it is dropped")
    }
}

impl<C> AsMut<C> for Taken<C> {
    fn as_mut(&mut self) -> &mut C {
        self
    }
}

impl<C> Drop for Taken<C> {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.connection.take());
    }
}
