//! What servers tell the example while they sell, and what it tells them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Microseconds of the machine's clock, which all servers share.
pub type Micros = u64;

/// How a purchase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Sold,
    SoldOut,
    /// By the store, because of a stale token.
    Refused,
    /// Its server was killed in the middle.
    Killed,
}

/// What happens inside a server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Event {
    /// It is connected and waits for the doors to open.
    Ready,
    /// A customer is inside the purchase.
    Began { customer: u32 },
    /// A customer stays inside, as told.
    Lingers { customer: u32 },
    /// A customer is done.
    Ended { customer: u32, began: Micros, outcome: Outcome },
    /// A purchase failed for another reason than the store's.
    Failed { customer: u32 },
    /// All its customers are done.
    Done,
}

/// An event with its time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Told {
    pub at: Micros,
    pub event: Event,
}

/// What a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The doors open.
    Open,
    /// Let the next customer stay inside for a while.
    Linger,
    /// Do nothing at all for so many milliseconds, as a paused process.
    Freeze(u64),
}

/// How long a lingering customer stays: long enough to be killed or paused meanwhile.
pub const LINGER: Duration = Duration::from_millis(500);

/// A server's mouth.
pub struct Teller {
    out: mpsc::UnboundedSender<Told>,
    linger: AtomicBool,
}

impl Teller {
    pub fn new(out: mpsc::UnboundedSender<Told>) -> Self {
        Self { out, linger: AtomicBool::new(false) }
    }

    /// Tells, and says when that was.
    pub fn tell(&self, event: Event) -> Micros {
        let at = now();
        // Nobody listens any more when the example has ended.
        let _ = self.out.send(Told { at, event });
        at
    }

    pub fn linger_next(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    pub async fn linger_if_told(&self, customer: u32) {
        if self.linger.swap(false, Ordering::Relaxed) {
            self.tell(Event::Lingers { customer });
            tokio::time::sleep(LINGER).await;
        }
    }
}

pub fn now() -> Micros {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
