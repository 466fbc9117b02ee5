//! Wake-ups: one connection per backend that listens for the releases of keys that somebody waits for.
//!
//! `LISTEN` belongs to a session, and a proxy that pools by transaction silently drops it. So the task first sends
//! itself a notification through the pool, and counts as deaf until one arrives; meanwhile, waiters poll.

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
use crate::stores::shared::wakeups::{DownAtEnd, Interest, Topics};

/// One channel for all keys. It carries only the releases of keys that somebody waits for.
pub(super) const CHANNEL: &str = "dlock";

/// How long the connection may be silent before it is probed.
const SILENCE: Duration = Duration::from_secs(5);

/// How long connecting, or an answer, may take.
const ANSWER: Duration = Duration::from_secs(2);

/// The pause between two attempts to listen: at first, and at most while the server is unreachable, because all its
/// clients retry.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The same after the server accepted `LISTEN`, but delivered nothing.
const PAUSE_WHEN_DEAF: Duration = Duration::from_secs(30);

/// A payload that cannot be a key: no key is longer than 512 bytes.
fn hello() -> String {
    format!("{:.<513}{}", "hello", OwnerId::random())
}

pub(super) struct Notices {
    store: Arc<Store>,
    topics: Arc<Topics>,
    /// Where hand-overs to this process alone arrive.
    own_channel: Option<String>,
    /// The server accepts `LISTEN`, but delivers nothing.
    is_deaf: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

impl Notices {
    pub(super) fn new(store: Arc<Store>, topics: Arc<Topics>, own_channel: Option<String>) -> Self {
        let (is_deaf, task) = Default::default();
        Self { store, topics, own_channel, is_deaf, task }
    }

    /// Starts to receive a key's releases, soon.
    pub(super) fn of(&self, key: String) -> Interest {
        self.ensure_task();
        Interest::new(Arc::clone(&self.topics), key)
    }

    /// Is it useless to wait for the connection to come up?
    pub(super) fn are_known_not_to_come(&self) -> bool {
        self.is_deaf.load(Ordering::Relaxed)
    }

    /// Starts the task on first use, and again if the runtime that it ran on has ended.
    pub(super) fn ensure_task(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let keeper = Keeper {
                store: Arc::clone(&self.store),
                topics: Arc::clone(&self.topics),
                own_channel: self.own_channel.clone(),
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
    own_channel: Option<String>,
    is_deaf: Arc<AtomicBool>,
}

/// Why the task does not listen, or no longer does.
enum Silent {
    Broken,
    Deaf,
}

impl Keeper {
    async fn run(self) {
        let _down = DownAtEnd(Arc::clone(&self.topics));
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
            self.topics.set_all_down();
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

    /// Opens a connection of its own that is known to receive notifications.
    async fn listen(&self) -> Result<PgListener, Silent> {
        let options = PgConnectOptions::clone(&self.store.pool().connect_options());
        let own = PgPoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let mut listener = in_time(PgListener::connect_with(&own)).await?;
        listener.eager_reconnect(false);
        let channels = [CHANNEL].into_iter().chain(self.own_channel.as_deref());
        in_time(listener.listen_all(channels)).await?;
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
                "postgres delivers no notifications on this connection (a proxy that pools by transaction?): waiters poll"
            );
            Err(Silent::Deaf)
        })?;
        Ok(listener)
    }

    async fn serve(&self, mut listener: PgListener) -> Silent {
        for topic in self.topics.all() {
            self.topics.set_live(&topic);
        }
        loop {
            tokio::select! {
                notice = listener.try_recv() => match notice {
                    Ok(Some(notice)) => self.topics.tell(notice.payload()),
                    Ok(None) | Err(_) => return Silent::Broken,
                },
                () = self.topics.changed() => {
                    for topic in self.topics.touched() {
                        self.topics.set_live(&topic);
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
