//! Events from the servers to the example, and commands from the example to the servers.

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
    /// Rejected by the store because of a stale token.
    Refused,
    /// Its server was killed during the purchase.
    Killed,
}

/// An event in a server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The server is connected and waits for the sale to open.
    Ready,
    /// A customer is inside the purchase.
    Began { customer: u32 },
    /// A customer stays inside, as commanded.
    Lingers { customer: u32 },
    /// A customer is done.
    Ended { customer: u32, began: Micros, outcome: Outcome },
    /// A purchase failed for a reason other than a stale token.
    Failed { customer: u32 },
    /// All customers of the server are done.
    Done,
}

/// An event with its time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Told {
    pub at: Micros,
    pub event: Event,
}

/// A command to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Open the sale.
    Open,
    /// Let the next customer stay inside for a while.
    Linger,
    /// Do nothing for this many milliseconds, like a paused process.
    Freeze(u64),
}

/// How long a lingering customer stays: long enough to kill or pause the server meanwhile.
pub const LINGER: Duration = Duration::from_millis(500);

/// Sends a server's events.
pub struct Teller {
    out: mpsc::UnboundedSender<Told>,
    linger: AtomicBool,
}

impl Teller {
    pub fn new(out: mpsc::UnboundedSender<Told>) -> Self {
        Self { out, linger: AtomicBool::new(false) }
    }

    /// Sends an event and returns its time.
    pub fn tell(&self, event: Event) -> Micros {
        let at = now();
        // The send fails only after the example has ended.
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
