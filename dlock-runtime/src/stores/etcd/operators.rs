//! For operators: who holds and who waits, and how a hold is ended from outside.

use std::collections::BTreeMap;

use super::Etcd;
use super::calls::Stored;
use super::names::{Value, lock_key, queue, queues};
use super::queue::token;
use crate::backend::{Holder, LockState, MAX_LISTED, Waiter};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::stores::shared::node_queue::{InQueue, split_holders};
use crate::stores::shared::queue_codec::mark_revoked;

impl Etcd {
    /// The first key of a queue as a holder.
    pub(super) async fn first_holder(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let head = self.0.calls.head(&queue(&self.0.prefix, key)).await?;
        let Some(head) = head else { return Ok(None) };
        self.holder(&head).await.map(Some)
    }

    async fn holder(&self, stored: &Stored) -> Result<Holder, BackendError> {
        let [_, left] = self.0.calls.times(stored.lease).await?;
        let Value { owner, revoked, client_info } = Value::parse(&stored.value);
        Ok(Holder::new(owner, token(stored.revision), left)
            .with_mode(stored.mode())
            .with_client_info(client_info)
            .with_revoked(revoked))
    }

    pub(super) async fn states(&self, key_prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let prefix = &self.0.prefix;
        let mut queues_by_key: BTreeMap<LockKey, Vec<Stored>> = BTreeMap::new();
        for stored in self.0.calls.all(&queues(prefix, key_prefix)).await? {
            if let Some(key) = lock_key(prefix, &stored.key) {
                queues_by_key.entry(key).or_default().push(stored);
            }
        }
        let mut states = vec![];
        for (key, queue) in queues_by_key.into_iter().take(MAX_LISTED) {
            states.push(self.state(key, queue).await?);
        }
        Ok(states)
    }

    async fn state(&self, key: LockKey, queue: Vec<Stored>) -> Result<LockState, BackendError> {
        let (holding, waiting) = split_holders(queue);
        let mut holders = vec![];
        for stored in holding {
            holders.push(self.holder(&stored).await?);
        }
        let waiters = waiting.iter().map(|stored| {
            let Value { owner, client_info, .. } = Value::parse(&stored.value);
            Waiter::new(owner, stored.mode(), client_info)
        });
        Ok(LockState::new(key, holders, waiters.collect()))
    }

    /// Marks the holders' keys. At its next renewal a holder finds that its key has changed.
    pub(super) async fn revoke_holds(&self, key: &LockKey) -> Result<bool, BackendError> {
        let calls = &self.0.calls;
        let (holding, _) = split_holders(calls.all(&queue(&self.0.prefix, key)).await?);
        let mut held = false;
        for stored in holding {
            let Value { owner: Some(_), revoked, .. } = Value::parse(&stored.value) else {
                continue;
            };
            held = true;
            if !revoked {
                let value = String::from_utf8_lossy(&stored.value);
                let own = String::from_utf8_lossy(&stored.key);
                calls.replace_own(&own, &value, &mark_revoked(&value), stored.lease).await?;
            }
        }
        Ok(held)
    }

    pub(super) async fn delete_holds(&self, key: &LockKey) -> Result<bool, BackendError> {
        let calls = &self.0.calls;
        let (keys, _) = calls.before(&queue(&self.0.prefix, key), i64::MAX).await?;
        let (holding, _) = split_holders(keys);
        let mut held = false;
        for queue_key in holding {
            held |= calls.delete(&queue_key.key).await?;
        }
        Ok(held)
    }
}
