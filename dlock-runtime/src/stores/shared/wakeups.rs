//! What the waiters of this process wait for, and how a backend's one listening task tells them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// Topics that somebody waits for; a topic lives as long as somebody does.
///
/// What came or went is noted only while somebody listens, who takes it away: without a listener nothing
/// accumulates.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Topic>,
    /// Those that came or went since the listening task last looked.
    touched: HashSet<String>,
    /// Does the listening task look?
    listening: bool,
    /// Is it known that nobody tells us anything? Then nobody should wait for that to begin.
    deaf: bool,
}

#[derive(Debug)]
struct Topic {
    waiters: usize,
    news: watch::Sender<News>,
}

#[derive(Clone, Copy, Debug, Default)]
struct News {
    hearing: Hearing,
    /// Grows with every message, and with every time that it began to tell us.
    count: u64,
}

/// Does the server tell us of changes?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hearing {
    /// It is to be asked to.
    #[default]
    Soon,
    Now,
    /// It was asked in vain.
    No,
}

/// How much is kept, for those who look for leaks.
#[cfg(any(feature = "redis", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) wanted: usize,
    pub(crate) touched: usize,
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
    pub(crate) fn touched(&self) -> HashSet<String> {
        std::mem::take(&mut self.state().touched)
    }

    /// Begins to listen: all topics there are. From now on those are noted that come or go.
    pub(crate) fn all(&self) -> HashSet<String> {
        let mut state = self.state();
        state.listening = true;
        state.deaf = false;
        state.touched.clear();
        state.topics.keys().cloned().collect()
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

    /// From now on the server tells us of this topic. What it told before was missed; where it has told us
    /// all along, nothing was, and nobody is woken.
    pub(crate) fn came_up(&self, topic: &str) {
        if let Some(topic) = self.state().topics.get(topic) {
            topic.news.send_if_modified(|news| {
                let is_new = news.hearing != Hearing::Now;
                if is_new {
                    *news = News { hearing: Hearing::Now, count: news.count + 1 };
                }
                is_new
            });
        }
    }

    /// The server tells us nothing any more, until the next time that somebody begins to listen.
    pub(crate) fn all_down(&self) {
        let mut state = self.state();
        state.listening = false;
        state.deaf = true;
        state.touched = HashSet::new();
        for topic in state.topics.values() {
            topic.news.send_modify(|news| news.hearing = Hearing::No);
        }
    }

    /// How much is kept.
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
        let hearing = if state.deaf { Hearing::No } else { Hearing::Soon };
        let entry = state.topics.entry(topic.clone()).or_insert_with(|| {
            let (news, _) = watch::channel(News { hearing, count: 0 });
            Topic { waiters: 0, news }
        });
        entry.waiters += 1;
        let news = entry.news.subscribe();
        state.touch(topic.clone());
        drop(state);
        topics.changed.notify_one();
        Self { topics, topic, news }
    }

    /// Does the server tell us of changes now?
    #[cfg(feature = "postgres")]
    pub(crate) fn is_live(&self) -> bool {
        self.news.borrow().hearing == Hearing::Now
    }

    /// Resolves when it is known whether the server tells us of changes: does it? Cancel safe.
    pub(crate) async fn live(&mut self) -> bool {
        match self
            .news
            .wait_for(|news| news.hearing != Hearing::Soon)
            .await
            .map(|news| news.hearing)
        {
            Ok(hearing) => hearing == Hearing::Now,
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves at the next news, good or bad. Cancel safe: news are told at the next call.
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
        topics.all_down();
        for _ in 0..100 {
            assert_eq!(interest(&topics).live().now_or_never(), Some(false));
        }
        assert_eq!(topics.size(), Size { wanted: 0, touched: 0 });
    }

    #[test]
    fn a_newcomer_wakes_nobody_else() {
        let topics = Arc::new(Topics::default());
        topics.all();
        let mut first = interest(&topics);
        topics.came_up("k");
        assert!(first.news().now_or_never().is_some());
        let mut second = interest(&topics);
        topics.came_up("k");
        assert_eq!(second.live().now_or_never(), Some(true));
        assert!(first.news().now_or_never().is_none());
        topics.tell("k");
        assert!(first.news().now_or_never().is_some());
        assert!(second.news().now_or_never().is_some());
    }

    #[test]
    fn who_heard_nothing_for_a_while_is_woken() {
        let topics = Arc::new(Topics::default());
        topics.all();
        let mut first = interest(&topics);
        topics.came_up("k");
        topics.all_down();
        assert!(first.news().now_or_never().is_some());
        assert!(topics.all().contains("k"));
        topics.came_up("k");
        assert!(first.news().now_or_never().is_some());
    }
}
