//! Wake-ups: one connection per backend that listens for the releases of keys that somebody waits
//! for.
//!
//! `LISTEN` is a session's own, which a proxy that pools by transaction does not keep, without saying
//! so. So the task sends itself a notice through the pool first, and counts as deaf while none comes
//! back; waiters then look for themselves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Store;
use crate::backoff::Backoff;
use crate::owner::OwnerId;
use crate::stores::postgres::dialect::text;
use crate::stores::shared::sql_leases::connections::Lane;
use crate::stores::shared::wakeups::{Interest, Topics};

/// One channel for all keys: who listens hears of those that somebody waits for, and of no others.
pub(super) const CHANNEL: &str = "dlock";

/// How long the connection may be silent before it is asked whether it still lives.
const SILENCE: Duration = Duration::from_secs(5);

/// How long connecting, or an answer, may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Between two tries to listen: at first, and while the server stays away. All processes that it left try again.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The same after the server let it listen, but told it nothing.
const PAUSE_WHEN_DEAF: Duration = Duration::from_secs(30);

/// Begins the payload that is no key: no key is longer than 512 bytes.
fn hello() -> String {
    format!("{:.<513}{}", "hello", OwnerId::random())
}

pub(super) struct Notices {
    store: Arc<Store>,
    topics: Arc<Topics>,
    /// The server lets it listen, and tells it nothing.
    is_deaf: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

impl Notices {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let (topics, is_deaf, task) = Default::default();
        Self { store, topics, is_deaf, task }
    }

    /// Begins to hear of a key's releases, soon.
    pub(super) fn of(&self, key: String) -> Interest {
        self.ensure_task();
        Interest::new(Arc::clone(&self.topics), key)
    }

    /// Is it of no use to wait for the connection to come up?
    pub(super) fn are_known_not_to_come(&self) -> bool {
        self.is_deaf.load(Ordering::Relaxed)
    }

    /// Starts the task at the first use, and again when the runtime it ran on has ended.
    fn ensure_task(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let keeper = Keeper {
                store: Arc::clone(&self.store),
                topics: Arc::clone(&self.topics),
                is_deaf: Arc::clone(&self.is_deaf),
            };
            *task = Some(tokio::spawn(keeper.run()).abort_handle());
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// The task that keeps the connection.
struct Keeper {
    store: Arc<Store>,
    topics: Arc<Topics>,
    is_deaf: Arc<AtomicBool>,
}

/// Why it does not listen (any more).
enum Silent {
    Broken,
    Deaf,
}

impl Keeper {
    async fn run(self) {
        let mut pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let silent = match self.listen().await {
                Ok(listener) => {
                    self.is_deaf.store(false, Ordering::Relaxed);
                    pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
                    self.serve(listener).await
                }
                Err(silent) => silent,
            };
            self.topics.all_down();
            let pause = match silent {
                Silent::Broken => pauses.pause(),
                Silent::Deaf => {
                    self.is_deaf.store(true, Ordering::Relaxed);
                    PAUSE_WHEN_DEAF.mul_f64(rand::random_range(0.5..=1.0))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// A connection of its own, that surely hears what is announced.
    async fn listen(&self) -> Result<PgListener, Silent> {
        let options = PgConnectOptions::clone(&self.store.pool().connect_options());
        let own = PgPoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let mut listener = in_time(PgListener::connect_with(&own)).await?;
        listener.eager_reconnect(false);
        in_time(listener.listen(CHANNEL)).await?;
        let hello = hello();
        let say = format!("SELECT pg_notify('{CHANNEL}', {})", text(&hello));
        self.store.run(Lane::Acquires, &say).await.map_err(|_| Silent::Broken)?;
        let heard = async {
            loop {
                match listener.try_recv().await {
                    Ok(Some(notice)) if notice.payload() == hello => return Ok(()),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Err(Silent::Broken),
                }
            }
        };
        timeout(ANSWER, heard).await.unwrap_or_else(|_| {
            tracing::info!(
                target: "dlock",
                "postgres announces nothing on this connection (a proxy that pools by transaction?): waiters look for themselves"
            );
            Err(Silent::Deaf)
        })?;
        Ok(listener)
    }

    async fn serve(&self, mut listener: PgListener) -> Silent {
        for topic in self.topics.all() {
            self.topics.came_up(&topic);
        }
        loop {
            tokio::select! {
                notice = listener.try_recv() => match notice {
                    Ok(Some(notice)) => self.topics.tell(notice.payload()),
                    Ok(None) | Err(_) => return Silent::Broken,
                },
                () = self.topics.changed() => {
                    for topic in self.topics.touched() {
                        self.topics.came_up(&topic);
                    }
                }
                () = tokio::time::sleep(SILENCE) => {
                    if in_time(listener.execute("SELECT 1")).await.is_err() {
                        return Silent::Broken;
                    }
                }
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Silent> {
    timeout(ANSWER, work).await.ok().and_then(Result::ok).ok_or(Silent::Broken)
}
