//! Wake-ups: one pub/sub connection per backend, subscribed to the channels of the keys that
//! somebody of this process waits for.
//!
//! What is wanted stands in [`Topics`]; a task reconciles the subscriptions with it. After every
//! (re)subscription the waiters are woken, since a message may have been missed before.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::task::AbortHandle;

use super::link::Link;
use crate::backend::topics::{Interest, Topics};
use crate::backend::{Answer, Watch};
use crate::error::BackendError;

/// How long the connection may be silent before it is asked whether it still lives.
const SILENCE: Duration = Duration::from_secs(5);

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(200);

pub(in crate::backend) struct Subscriptions {
    link: Arc<Link>,
    topics: Arc<Topics>,
    task: Mutex<Option<AbortHandle>>,
}

impl Subscriptions {
    pub(in crate::backend) fn new(link: Arc<Link>) -> Self {
        Self { link, topics: Arc::default(), task: Mutex::default() }
    }

    /// Watches a channel; resolves when the subscription is confirmed.
    pub(in crate::backend) async fn watch(
        &self,
        channel: String,
    ) -> Result<ChannelWatch, BackendError> {
        self.ensure_task();
        let mut interest = Interest::new(Arc::clone(&self.topics), channel);
        match tokio::time::timeout(self.link.limits().connect, interest.live()).await {
            Ok(()) => Ok(ChannelWatch(interest)),
            Err(_) => Err(BackendError::transient("redis did not confirm a subscription in time")),
        }
    }

    /// Starts the task at the first use, and again when the runtime it ran on has ended.
    fn ensure_task(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let keeper = Keeper { link: Arc::clone(&self.link), topics: Arc::clone(&self.topics) };
            *task = Some(tokio::spawn(keeper.run()).abort_handle());
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// The task that keeps the connection and its subscriptions.
struct Keeper {
    link: Arc<Link>,
    topics: Arc<Topics>,
}

/// The connection is to be made again.
struct Broken;

impl Keeper {
    async fn run(self) {
        loop {
            if let Ok(connection) = self.link.topology.listen(self.link.limits()).await {
                let (sink, stream) = connection.split();
                let Broken = self.serve(sink, stream).await;
            }
            self.topics.all_down();
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    async fn serve(&self, mut sink: PubSubSink, mut messages: PubSubStream) -> Broken {
        let mut subscribed = HashSet::new();
        let mut touched = self.topics.all();
        loop {
            for channel in touched {
                if self.reconcile(&mut sink, &mut subscribed, channel).await.is_err() {
                    return Broken;
                }
            }
            let message = tokio::select! {
                message = messages.next() => Some(message),
                () = self.topics.changed() => None,
                () = tokio::time::sleep(SILENCE) => {
                    if self.in_time(sink.ping::<redis::Value>()).await.is_err() {
                        return Broken;
                    }
                    None
                }
            };
            match message {
                Some(Some(message)) => self.topics.tell(message.get_channel_name()),
                Some(None) => return Broken,
                None => {}
            }
            touched = self.topics.touched();
        }
    }

    async fn reconcile(
        &self,
        sink: &mut PubSubSink,
        subscribed: &mut HashSet<String>,
        channel: String,
    ) -> Result<(), Broken> {
        if self.topics.is_wanted(&channel) {
            if !subscribed.contains(&channel) {
                self.in_time(sink.subscribe(&channel)).await?;
            }
            self.topics.came_up(&channel);
            subscribed.insert(channel);
        } else if subscribed.remove(&channel) {
            self.in_time(sink.unsubscribe(&channel)).await?;
        }
        Ok(())
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, Broken> {
        let answer = tokio::time::timeout(self.link.limits().response, answer).await;
        answer.ok().and_then(Result::ok).ok_or(Broken)
    }
}

/// One waiter's interest in a channel.
pub(in crate::backend) struct ChannelWatch(Interest);

impl Watch for ChannelWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(self.0.news())
    }
}
