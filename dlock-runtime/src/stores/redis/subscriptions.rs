//! Wake-ups: one pub/sub connection per backend, subscribed to the channels of the keys that have
//! waiters in this process.
//!
//! [`Topics`] (`stores/shared/wakeups.rs`) lists the wanted channels, and a task reconciles the subscriptions with it.
//! After every (re)subscription the waiters are woken, since a message may have been missed before.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::task::AbortHandle;

use super::names;
use super::servers::Servers;
use crate::backend::{Answer, Watch};
use crate::backoff::Backoff;
use crate::error::BackendError;
use crate::stores::shared::wakeups::{DownAtEnd, Interest, Topics};

/// How long the connection may be silent before a ping checks whether it is still alive.
const SILENCE: Duration = Duration::from_secs(5);

/// The first pause between connection attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest pause when the server cannot be reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause when the server refuses the subscription.
const LONGEST_PAUSE_WHEN_REFUSED: Duration = Duration::from_mins(1);

pub(in crate::stores) struct Subscriptions {
    servers: Servers,
    own_channel: Option<Arc<str>>,
    topics: Arc<Topics>,
    task: Mutex<Option<AbortHandle>>,
}

impl Subscriptions {
    /// `own_channel`: where messages for this process alone arrive. Each is the name of a lock.
    pub(in crate::stores) fn new(servers: Servers, own_channel: Option<String>) -> Self {
        let own_channel = own_channel.map(Into::into);
        Self { servers, own_channel, topics: Arc::default(), task: Mutex::default() }
    }

    /// Watches a channel. Resolves when the subscription is confirmed, and fails if it is not. While no
    /// subscription can be confirmed, fails at once.
    pub(in crate::stores) async fn watch(
        &self,
        channel: String,
    ) -> Result<ChannelWatch, BackendError> {
        self.ensure_task();
        let mut interest = Interest::new(Arc::clone(&self.topics), channel);
        match tokio::time::timeout(self.servers.limits().connect, interest.live()).await {
            Ok(true) => Ok(ChannelWatch(interest)),
            Ok(false) => Err(BackendError::transient("redis does not confirm subscriptions now")),
            Err(_) => Err(BackendError::transient("redis did not confirm a subscription in time")),
        }
    }

    /// Starts the task on first use, and again if the runtime it ran on has shut down.
    pub(super) fn ensure_task(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let keeper = Keeper {
                servers: self.servers.clone(),
                own_channel: self.own_channel.clone(),
                topics: Arc::clone(&self.topics),
            };
            *task = Some(tokio::spawn(keeper.run()).abort_handle());
        }
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.topics.size().fmt(f)
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// The task that maintains the connection and its subscriptions.
struct Keeper {
    servers: Servers,
    own_channel: Option<Arc<str>>,
    topics: Arc<Topics>,
}

/// Why the connection must be replaced.
struct Broken {
    why: RedisError,
    /// Did it carry a subscription before?
    was_of_use: bool,
}

impl Keeper {
    async fn run(self) {
        let _down = DownAtEnd(Arc::clone(&self.topics));
        let (mut pauses, mut is_logged) = (Pauses::new(), false);
        loop {
            let broken = match self.servers.listen().await {
                Ok(connection) => {
                    let (sink, stream) = connection.split();
                    self.serve(sink, stream).await
                }
                Err(why) => Broken { why, was_of_use: false },
            };
            self.topics.set_all_down();
            if broken.was_of_use {
                (pauses, is_logged) = (Pauses::new(), false);
            } else if !is_logged {
                is_logged = true;
                tracing::warn!(
                    target: "dlock",
                    address = self.servers.address(),
                    error = %broken.why,
                    "redis does not confirm subscriptions; until it does, waiters poll"
                );
            }
            tokio::time::sleep(pauses.after(&broken.why)).await;
        }
    }

    /// Serves the topics until the connection breaks or the server refuses a request.
    async fn serve(&self, mut sink: PubSubSink, mut messages: PubSubStream) -> Broken {
        let mut subscribed = HashSet::new();
        let (mut was_of_use, mut hears_own) = (false, false);
        let mut touched = self.topics.all();
        loop {
            // First, so that a waiter that is live misses no message of either kind.
            if let Err(why) = self.reconcile_own(&mut sink, &mut hears_own).await {
                return Broken { why, was_of_use };
            }
            for channel in touched {
                if self.own_channel.is_some() && !hears_own && self.topics.is_wanted(&channel) {
                    // Added since, and therefore touched again: next time.
                    continue;
                }
                if let Err(why) = self.reconcile(&mut sink, &mut subscribed, channel).await {
                    return Broken { why, was_of_use };
                }
                was_of_use |= !subscribed.is_empty();
            }
            let message = tokio::select! {
                message = messages.next() => Some(message),
                () = self.topics.changed() => None,
                () = tokio::time::sleep(SILENCE) => {
                    if let Err(why) = self.in_time(sink.ping::<redis::Value>()).await {
                        return Broken { why, was_of_use };
                    }
                    None
                }
            };
            match message {
                Some(Some(message)) => self.tell(&message),
                Some(None) => return Broken { why: super::topology::closed(), was_of_use },
                None => {}
            }
            touched = self.topics.touched();
        }
    }

    /// Notifies the waiters of the lock that the message is about.
    fn tell(&self, message: &redis::Msg) {
        let channel = message.get_channel_name();
        if self.own_channel.as_deref() != Some(channel) {
            self.topics.tell(channel);
        } else if let Ok(lock) = std::str::from_utf8(message.get_payload_bytes()) {
            self.topics.tell(&names::channel_of(lock));
        }
    }

    /// Listens to the channel of this process as long as anybody waits.
    async fn reconcile_own(&self, sink: &mut PubSubSink, hears: &mut bool) -> RedisResult<()> {
        let Some(channel) = &self.own_channel else { return Ok(()) };
        let is_wanted = !self.topics.is_empty();
        if is_wanted && !*hears {
            self.in_time(sink.subscribe(&**channel)).await?;
        } else if !is_wanted && *hears {
            self.in_time(sink.unsubscribe(&**channel)).await?;
        }
        *hears = is_wanted;
        Ok(())
    }

    async fn reconcile(
        &self,
        sink: &mut PubSubSink,
        subscribed: &mut HashSet<String>,
        channel: String,
    ) -> RedisResult<()> {
        if self.topics.is_wanted(&channel) {
            if !subscribed.contains(&channel) {
                self.in_time(sink.subscribe(&channel)).await?;
            }
            self.topics.set_live(&channel);
            subscribed.insert(channel);
        } else if subscribed.remove(&channel) {
            self.in_time(sink.unsubscribe(&channel)).await?;
        }
        Ok(())
    }

    async fn in_time<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let answer = tokio::time::timeout(self.servers.limits().response, answer).await;
        answer.unwrap_or_else(|_| Err(super::topology::late()))
    }
}

/// The pauses between connection attempts. They grow, and grow longer if the server refuses, because
/// only an operator can change that.
struct Pauses {
    unreachable: Backoff,
    refused: Backoff,
}

impl Pauses {
    const fn new() -> Self {
        Self {
            unreachable: Backoff::new(PAUSE, LONGEST_PAUSE),
            refused: Backoff::new(PAUSE, LONGEST_PAUSE_WHEN_REFUSED),
        }
    }

    fn after(&mut self, why: &RedisError) -> Duration {
        let is_refusal = matches!(why.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        if is_refusal { self.refused.pause() } else { self.unreachable.pause() }
    }
}

/// One waiter's interest in a channel.
pub(in crate::stores) struct ChannelWatch(Interest);

impl Watch for ChannelWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(self.0.news())
    }
}
