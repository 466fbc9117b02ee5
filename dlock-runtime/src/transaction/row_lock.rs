//! What a caller knows of a row lock it holds.

use crate::key::LockKey;
use crate::token::FencingToken;

/// A row lock: held until the transaction that took it ends. Dropping this changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLock {
    key: LockKey,
    token: FencingToken,
}

impl RowLock {
    pub(crate) fn new(key: LockKey, token: FencingToken) -> Self {
        Self { key, token }
    }

    /// The key that is locked.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        &self.key
    }

    /// Larger than that of every earlier row lock of this key. For resources outside the database.
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

    /// The single locks, in the order of their keys; equal keys are one.
    #[must_use]
    pub fn holds(&self) -> &[RowLock] {
        &self.0
    }

    /// The lock of this key, if it is among them.
    #[must_use]
    pub fn get(&self, key: &LockKey) -> Option<&RowLock> {
        self.0.iter().find(|lock| lock.key() == key)
    }
}
