//! What the waiters of this process wait for, and how a backend's one listening task tells them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// Topics that somebody waits for; a topic lives as long as somebody does.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Topic>,
    /// Those that came or went since the listening task last looked.
    touched: Vec<String>,
}

#[derive(Debug)]
struct Topic {
    waiters: usize,
    news: watch::Sender<News>,
}

#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Does the server tell us of changes now?
    live: bool,
    /// Grows with every message, and with every time that it began to tell us.
    count: u64,
}

/// The listening task's side.
impl Topics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when topics have come or gone. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The topics that have come or gone since the last call.
    pub(crate) fn touched(&self) -> Vec<String> {
        std::mem::take(&mut self.state().touched)
    }

    /// All topics there are.
    pub(crate) fn all(&self) -> Vec<String> {
        self.state().topics.keys().cloned().collect()
    }

    #[cfg(feature = "redis")]
    pub(crate) fn is_wanted(&self, topic: &str) -> bool {
        self.state().topics.contains_key(topic)
    }

    /// Something has happened to this topic.
    pub(crate) fn tell(&self, topic: &str) {
        if let Some(topic) = self.state().topics.get(topic) {
            topic.news.send_modify(|news| news.count += 1);
        }
    }

    /// From now on the server tells us of this topic. What it told before was missed.
    pub(crate) fn came_up(&self, topic: &str) {
        if let Some(topic) = self.state().topics.get(topic) {
            topic.news.send_modify(|news| *news = News { live: true, count: news.count + 1 });
        }
    }

    /// The server tells us nothing any more.
    pub(crate) fn all_down(&self) {
        for topic in self.state().topics.values() {
            topic.news.send_modify(|news| news.live = false);
        }
    }
}

/// One waiter's interest in a topic.
#[derive(Debug)]
pub(crate) struct Interest {
    topics: Arc<Topics>,
    topic: String,
    news: watch::Receiver<News>,
}

impl Interest {
    pub(crate) fn new(topics: Arc<Topics>, topic: String) -> Self {
        let mut state = topics.state();
        let entry = state
            .topics
            .entry(topic.clone())
            .or_insert_with(|| Topic { waiters: 0, news: watch::Sender::default() });
        entry.waiters += 1;
        let news = entry.news.subscribe();
        state.touched.push(topic.clone());
        drop(state);
        topics.changed.notify_one();
        Self { topics, topic, news }
    }

    /// Does the server tell us of changes now?
    #[cfg(feature = "postgres")]
    pub(crate) fn is_live(&self) -> bool {
        self.news.borrow().live
    }

    /// Resolves when the server tells us of changes. Cancel safe.
    pub(crate) async fn live(&mut self) {
        if self.news.wait_for(|news| news.live).await.is_err() {
            self.never().await;
        }
    }

    /// Resolves at the next news, good or bad. Cancel safe: news are told at the next call.
    pub(crate) async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            self.never().await;
        }
    }

    /// The topic lives as long as its interests do.
    async fn never(&self) {
        std::future::pending::<()>().await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = self.topics.state();
        if let Some(topic) = state.topics.get_mut(&self.topic) {
            topic.waiters -= 1;
            if topic.waiters == 0 {
                state.topics.remove(&self.topic);
                state.touched.push(std::mem::take(&mut self.topic));
                self.topics.changed.notify_one();
            }
        }
    }
}
