//! Wake-ups: one pub/sub connection per backend, subscribed to the channels of the keys that
//! somebody of this process waits for.
//!
//! What is wanted stands in a map; a task reconciles the subscriptions with it. After every
//! (re)subscription the waiters are woken, since a message may have been missed before.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::link::Link;
use crate::backend::{Answer, Watch};
use crate::error::BackendError;

/// How long the connection may be silent before it is asked whether it still lives.
const SILENCE: Duration = Duration::from_secs(5);

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Subscriptions {
    link: Arc<Link>,
    wanted: Arc<Wanted>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct Wanted {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Topic>,
    /// Channels whose topic came or went since the task last looked.
    touched: Vec<String>,
}

#[derive(Debug)]
struct Topic {
    watches: usize,
    news: watch::Sender<News>,
}

#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Is the subscription up?
    live: bool,
    /// Grows with every message, and with every time the subscription came up.
    count: u64,
}

impl Subscriptions {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, wanted: Arc::default(), task: Mutex::default() }
    }

    /// Watches a channel; resolves when the subscription is confirmed.
    pub(super) async fn watch(&self, channel: String) -> Result<ChannelWatch, BackendError> {
        self.ensure_task();
        let mut watch = ChannelWatch::new(Arc::clone(&self.wanted), channel);
        let confirmed = watch.news.wait_for(|news| news.live);
        let confirmed = tokio::time::timeout(self.link.limits().connect, confirmed).await;
        if confirmed.is_ok_and(|news| news.is_ok()) {
            Ok(watch)
        } else {
            Err(BackendError::transient("redis did not confirm a subscription in time"))
        }
    }

    /// Starts the task at the first use, and again when the runtime it ran on has ended.
    fn ensure_task(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let keeper = Keeper { link: Arc::clone(&self.link), wanted: Arc::clone(&self.wanted) };
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

impl Wanted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, channel: &str) {
        if let Some(topic) = self.state().topics.get(channel) {
            topic.news.send_modify(|news| news.count += 1);
        }
    }

    fn came_up(&self, channel: &str) {
        if let Some(topic) = self.state().topics.get(channel) {
            topic.news.send_modify(|news| *news = News { live: true, count: news.count + 1 });
        }
    }

    fn all_down(&self) {
        for topic in self.state().topics.values() {
            topic.news.send_modify(|news| news.live = false);
        }
    }
}

/// The task that keeps the connection and its subscriptions.
struct Keeper {
    link: Arc<Link>,
    wanted: Arc<Wanted>,
}

/// The connection is to be made again.
struct Broken;

impl Keeper {
    async fn run(self) {
        loop {
            let connecting = self.link.client.get_async_pubsub();
            if let Ok(Ok(connection)) =
                tokio::time::timeout(self.link.limits().connect, connecting).await
            {
                let (sink, stream) = connection.split();
                let Broken = self.serve(sink, stream).await;
            }
            self.wanted.all_down();
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    async fn serve(&self, mut sink: PubSubSink, mut messages: PubSubStream) -> Broken {
        let mut subscribed = HashSet::new();
        let mut touched: Vec<_> = self.wanted.state().topics.keys().cloned().collect();
        loop {
            for channel in touched {
                if self.reconcile(&mut sink, &mut subscribed, channel).await.is_err() {
                    return Broken;
                }
            }
            let message = tokio::select! {
                message = messages.next() => Some(message),
                () = self.wanted.changed.notified() => None,
                () = tokio::time::sleep(SILENCE) => {
                    if self.in_time(sink.ping::<redis::Value>()).await.is_err() {
                        return Broken;
                    }
                    None
                }
            };
            match message {
                Some(Some(message)) => self.wanted.tell(message.get_channel_name()),
                Some(None) => return Broken,
                None => {}
            }
            touched = std::mem::take(&mut self.wanted.state().touched);
        }
    }

    async fn reconcile(
        &self,
        sink: &mut PubSubSink,
        subscribed: &mut HashSet<String>,
        channel: String,
    ) -> Result<(), Broken> {
        let wanted = self.wanted.state().topics.contains_key(&channel);
        if wanted {
            if !subscribed.contains(&channel) {
                self.in_time(sink.subscribe(&channel)).await?;
            }
            self.wanted.came_up(&channel);
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
pub(super) struct ChannelWatch {
    wanted: Arc<Wanted>,
    channel: String,
    news: watch::Receiver<News>,
}

impl ChannelWatch {
    fn new(wanted: Arc<Wanted>, channel: String) -> Self {
        let mut state = wanted.state();
        let topic = state
            .topics
            .entry(channel.clone())
            .or_insert_with(|| Topic { watches: 0, news: watch::Sender::default() });
        topic.watches += 1;
        let news = topic.news.subscribe();
        state.touched.push(channel.clone());
        drop(state);
        wanted.changed.notify_one();
        Self { wanted, channel, news }
    }
}

impl Watch for ChannelWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            if self.news.changed().await.is_err() {
                // The topic lives as long as its watches do.
                std::future::pending::<()>().await;
            }
        })
    }
}

impl Drop for ChannelWatch {
    fn drop(&mut self) {
        let mut state = self.wanted.state();
        if let Some(topic) = state.topics.get_mut(&self.channel) {
            topic.watches -= 1;
            if topic.watches == 0 {
                state.topics.remove(&self.channel);
                state.touched.push(std::mem::take(&mut self.channel));
                self.wanted.changed.notify_one();
            }
        }
    }
}
