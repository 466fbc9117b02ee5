//! The topics that waiters of this process wait for, and how a backend's single listening task notifies them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// Topics that have waiters. A topic exists as long as it has one.
///
/// Added and removed topics are recorded only while the listening task runs, which drains them: without it
/// nothing accumulates.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Topic>,
    /// Topics that were added or removed since the listening task last called [`Topics::touched`].
    touched: HashSet<String>,
    /// Is the listening task connected?
    listening: bool,
    /// Has listening failed? Then a new waiter does not wait for it to begin.
    is_down: bool,
}

#[derive(Debug)]
struct Topic {
    waiters: usize,
    news: watch::Sender<News>,
}

#[derive(Clone, Copy, Debug, Default)]
struct News {
    delivery: Delivery,
    /// Grows with every message, and whenever notifications begin.
    count: u64,
}

/// Does the server send notifications?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivery {
    /// Not requested yet.
    #[default]
    Pending,
    Live,
    /// The request failed, or the connection broke.
    Down,
}

/// The sizes of the collections, to detect leaks.
#[cfg(any(feature = "redis", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) wanted: usize,
    pub(crate) touched: usize,
}

/// The side of the listening task.
impl Topics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when topics were added or removed. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the topics that were added or removed since the last call.
    pub(crate) fn touched(&self) -> HashSet<String> {
        std::mem::take(&mut self.state().touched)
    }

    /// Begins to listen, and returns all topics. From now on, added and removed topics are recorded.
    pub(crate) fn all(&self) -> HashSet<String> {
        let mut state = self.state();
        state.listening = true;
        state.is_down = false;
        state.touched.clear();
        state.topics.keys().cloned().collect()
    }

    #[cfg(feature = "redis")]
    pub(crate) fn is_wanted(&self, topic: &str) -> bool {
        self.state().topics.contains_key(topic)
    }

    /// Returns whether the listening task is connected.
    #[cfg(feature = "postgres")]
    pub(crate) fn are_live(&self) -> bool {
        self.state().listening
    }

    /// Returns whether nobody waits for anything.
    #[cfg(feature = "redis")]
    pub(crate) fn is_empty(&self) -> bool {
        self.state().topics.is_empty()
    }

    /// Notifies the waiters of this topic.
    pub(crate) fn tell(&self, topic: &str) {
        if let Some(topic) = self.state().topics.get(topic) {
            topic.news.send_modify(|news| news.count += 1);
        }
    }

    /// Records that the server now sends notifications for this topic. Earlier ones were missed, so the waiters
    /// are woken. If notifications were live all along, none was missed and nobody is woken.
    pub(crate) fn set_live(&self, topic: &str) {
        if let Some(topic) = self.state().topics.get(topic) {
            topic.news.send_if_modified(|news| {
                let is_new = news.delivery != Delivery::Live;
                if is_new {
                    *news = News { delivery: Delivery::Live, count: news.count + 1 };
                }
                is_new
            });
        }
    }

    /// Records that no notifications arrive until listening begins again.
    pub(crate) fn set_all_down(&self) {
        let mut state = self.state();
        state.listening = false;
        state.is_down = true;
        state.touched = HashSet::new();
        for topic in state.topics.values() {
            topic.news.send_modify(|news| news.delivery = Delivery::Down);
        }
    }

    /// The sizes of the collections.
    #[cfg(any(feature = "redis", test))]
    pub(crate) fn size(&self) -> Size {
        let state = self.state();
        Size { wanted: state.topics.len(), touched: state.touched.len() }
    }
}

impl State {
    fn touch(&mut self, topic: String) {
        if self.listening {
            self.touched.insert(topic);
        }
    }
}

/// Records that nobody listens when it is dropped, which also happens when the runtime of the listening task shuts down.
pub(crate) struct DownAtEnd(pub(crate) Arc<Topics>);

impl Drop for DownAtEnd {
    fn drop(&mut self) {
        self.0.set_all_down();
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
        let delivery = if state.is_down { Delivery::Down } else { Delivery::Pending };
        let entry = state.topics.entry(topic.clone()).or_insert_with(|| {
            let (news, _) = watch::channel(News { delivery, count: 0 });
            Topic { waiters: 0, news }
        });
        entry.waiters += 1;
        let news = entry.news.subscribe();
        state.touch(topic.clone());
        drop(state);
        topics.changed.notify_one();
        Self { topics, topic, news }
    }

    /// Does the server send notifications now?
    #[cfg(feature = "postgres")]
    pub(crate) fn is_live(&self) -> bool {
        self.news.borrow().delivery == Delivery::Live
    }

    /// Waits until it is known whether the server sends notifications, and returns whether it does. Cancel safe.
    pub(crate) async fn live(&mut self) -> bool {
        match self
            .news
            .wait_for(|news| news.delivery != Delivery::Pending)
            .await
            .map(|news| news.delivery)
        {
            Ok(delivery) => delivery == Delivery::Live,
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves at the next notification, or when notifications begin or end. Cancel safe: whatever happens between two
    /// calls resolves the second.
    pub(crate) async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            // The topic lives as long as its interests do.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = self.topics.state();
        if let Some(topic) = state.topics.get_mut(&self.topic) {
            topic.waiters -= 1;
            if topic.waiters == 0 {
                state.topics.remove(&self.topic);
                state.touch(std::mem::take(&mut self.topic));
                self.topics.changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn interest(topics: &Arc<Topics>) -> Interest {
        Interest::new(Arc::clone(topics), "k".to_owned())
    }

    #[test]
    fn nothing_accumulates_without_a_listener() {
        let topics = Arc::new(Topics::default());
        for _ in 0..100 {
            drop(interest(&topics));
        }
        assert_eq!(topics.size(), Size { wanted: 0, touched: 0 });
        topics.all();
        for _ in 0..100 {
            drop(interest(&topics));
        }
        assert_eq!(topics.size(), Size { wanted: 0, touched: 1 });
        topics.set_all_down();
        for _ in 0..100 {
            assert_eq!(interest(&topics).live().now_or_never(), Some(false));
        }
        assert_eq!(topics.size(), Size { wanted: 0, touched: 0 });
    }

    #[test]
    fn a_new_waiter_wakes_nobody_else() {
        let topics = Arc::new(Topics::default());
        topics.all();
        let mut first = interest(&topics);
        topics.set_live("k");
        assert!(first.news().now_or_never().is_some());
        let mut second = interest(&topics);
        topics.set_live("k");
        assert_eq!(second.live().now_or_never(), Some(true));
        assert!(first.news().now_or_never().is_none());
        topics.tell("k");
        assert!(first.news().now_or_never().is_some());
        assert!(second.news().now_or_never().is_some());
    }

    #[test]
    fn a_waiter_that_may_have_missed_messages_is_woken() {
        let topics = Arc::new(Topics::default());
        topics.all();
        let mut first = interest(&topics);
        topics.set_live("k");
        topics.set_all_down();
        assert!(first.news().now_or_never().is_some());
        assert!(topics.all().contains("k"));
        topics.set_live("k");
        assert!(first.news().now_or_never().is_some());
    }
}
