//! Counts the messages that sqlx sends to a server. sqlx logs each one once it is answered.

use std::cell::Cell;

use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

tokio::task_local! {
    static SENT: Cell<u64>;
    static LISTENER: Listener;
}

type Listener = Box<dyn Fn(u64) + Send>;

struct Count;

impl Layer<Registry> for Count {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, Registry>) {
        if event.metadata().target() == "sqlx::query" {
            // Fails outside of `counted`, where nothing is counted.
            let _ = SENT.try_with(|sent| {
                sent.set(sent.get() + 1);
                let _ = LISTENER.try_with(|listener| listener(sent.get()));
            });
        }
    }
}

/// Installs the counter for the whole process.
pub fn listen() {
    let subscriber = tracing_subscriber::registry().with(Count);
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
}

/// Runs a future and returns how many messages it sent.
pub async fn counted<T>(work: impl Future<Output = T>) -> (T, u64) {
    SENT.scope(Cell::new(0), async {
        let done = work.await;
        (done, SENT.with(Cell::get))
    })
    .await
}

/// Runs a future and calls `act` between the answer to its nth message and its next message.
pub async fn after<T>(
    nth: u64,
    act: impl Fn() + Send + 'static,
    work: impl Future<Output = T>,
) -> T {
    let listener = move |sent| {
        if sent == nth {
            act();
        }
    };
    LISTENER.scope(Box::new(listener), counted(work)).await.0
}
