//! Row locks that are held.

use crate::key::LockKey;
use crate::token::FencingToken;

/// A row lock, held until the transaction that acquired it ends. Dropping this value releases nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLock {
    key: LockKey,
    token: FencingToken,
}

impl RowLock {
    pub(crate) fn new(key: LockKey, token: FencingToken) -> Self {
        Self { key, token }
    }

    /// Returns the locked key.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        &self.key
    }

    /// Returns the fencing token, for resources outside the database.
    ///
    /// It is larger than the token of every earlier row lock that this one excludes.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.token
    }
}

/// Several row locks of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLocks(Vec<RowLock>);

impl RowLocks {
    pub(crate) fn new(locks: Vec<RowLock>) -> Self {
        Self(locks)
    }

    pub(crate) fn into_locks(self) -> Vec<RowLock> {
        self.0
    }

    /// Returns the individual locks in key order; duplicate keys appear once.
    #[must_use]
    pub fn holds(&self) -> &[RowLock] {
        &self.0
    }

    /// Returns the lock of this key, if it is among them.
    #[must_use]
    pub fn get(&self, key: &LockKey) -> Option<&RowLock> {
        self.0.iter().find(|lock| lock.key() == key)
    }
}
