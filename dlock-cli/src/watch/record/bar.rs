//! What the timeline consists of.

use std::time::Duration;

use dlock_runtime::{ClientInfo, LockKey};

use crate::top::model::site_of;

/// A while in which a client held a key or waited for it; or several that were merged.
#[derive(Clone, Debug)]
pub struct Bar {
    pub kind: Kind,
    /// `None` if bars of several keys were merged.
    pub key: Option<LockKey>,
    pub client: Option<ClientInfo>,
    /// As in a [`Moment`](crate::top::model::Moment).
    pub from: Duration,
    pub to: Duration,
    /// The smallest and the largest fencing token of a hold.
    pub tokens: Option<(u64, u64)>,
    /// It was there when the recording began, or when the store answered again.
    pub began_unseen: bool,
    pub end: End,
    /// How many were merged.
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Hold,
    /// Nobody holds the key, but it is kept for the rest of a `min_hold`.
    Rest,
    Wait,
}

/// How a bar ended, as far as samples can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is there in the last sample.
    Open,
    /// It is not there any more. A release and one by force look the same.
    Gone,
    /// A hold whose lease was not renewed, and ended before the next sample.
    RanOut,
    /// A hold that was revoked while it lasted.
    Revoked,
    /// A wait that became a hold.
    Granted,
    /// The store did not answer.
    Unwatched,
}

/// A process, as the store shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub host: String,
    pub id: Option<u32>,
}

impl Bar {
    pub fn site(&self) -> &str {
        site_of(self.client.as_ref())
    }

    pub fn process(&self) -> Process {
        let host = site_of(None).to_owned();
        self.client.as_ref().map_or(Process { host, id: None }, |client| Process {
            host: client.host().to_owned(),
            id: Some(client.process_id()),
        })
    }

    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// A holder that vanished without a release.
    pub fn has_mark(&self) -> bool {
        matches!(self.end, End::RanOut | End::Revoked)
    }
}
