//! Bars that grow with each sample.

use std::time::Duration;

use dlock_runtime::backend::{Holder, Waiter};
use dlock_runtime::{ClientInfo, LockKey, OwnerId};

use super::{Bar, End, Kind};
use crate::top::model::{Moment, site_of};

/// A bar that the last sample has shown.
#[derive(Clone, Debug)]
pub struct Open {
    pub bar: Bar,
    /// Of a hold, or of a wait if it has one.
    pub owner: Option<OwnerId>,
    /// Of a wait.
    wait: Option<String>,
    lease: Lease,
    /// When a sample showed it last.
    pub seen: Duration,
}

/// What samples have shown of the lease of a hold.
#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    left: Duration,
    /// The most that was ever left: about the ttl.
    most: Duration,
    is_revoked: bool,
}

impl Open {
    pub fn hold(key: &LockKey, holder: &Holder, from: Duration) -> Self {
        let bar = bar(kind(holder), key, holder.client_info.as_ref(), from);
        let lease = Lease::default();
        Self { bar, owner: holder.owner, wait: None, lease, seen: from }
    }

    pub fn wait(key: &LockKey, waiter: &Waiter, id: String, from: Duration) -> Self {
        let bar = bar(Kind::Wait, key, waiter.client_info.as_ref(), from);
        Self { bar, owner: waiter.owner, wait: Some(id), lease: Lease::default(), seen: from }
    }

    /// A lease that passes within a process keeps its owner, and may have another token.
    pub fn is_hold_of(&self, holder: &Holder) -> bool {
        let has_token = self.bar.tokens.is_some_and(|(_, latest)| latest == holder.token.get());
        self.bar.kind == kind(holder)
            && (has_token || holder.owner.is_some() && holder.owner == self.owner)
            && self.bar.site() == site_of(holder.client_info.as_ref())
    }

    pub fn is_wait(&self, id: &str) -> bool {
        self.wait.as_deref() == Some(id)
    }

    /// It lasted until then.
    pub fn extend(&mut self, until: Duration) {
        self.bar.to = self.bar.to.max(until);
    }

    /// A sample shows this hold.
    pub fn see_hold(&mut self, holder: &Holder, at: Moment) {
        let token = holder.token.get();
        let (least, most) = self.bar.tokens.unwrap_or((token, token));
        self.bar.tokens = Some((least.min(token), most.max(token)));
        self.lease.left = holder.expires_in;
        self.lease.most = self.lease.most.max(holder.expires_in);
        self.lease.is_revoked |= holder.revoked;
        self.see(at);
    }

    pub fn see(&mut self, at: Moment) {
        self.seen = at.elapsed;
        self.extend(at.elapsed);
    }

    /// The next sample, at `now`, does not show it any more.
    pub fn end_of_hold(&self, now: Duration) -> End {
        match self.bar.kind {
            Kind::Hold if self.lease.is_revoked => End::Revoked,
            Kind::Hold if self.lease.has_run_out(now.saturating_sub(self.seen)) => End::RanOut,
            _ => End::Gone,
        }
    }

    pub fn closed(mut self, end: End) -> Bar {
        self.bar.end = end;
        self.bar
    }
}

impl Lease {
    /// A lease that is renewed never comes near its end, so one that did was not renewed any more.
    fn has_run_out(self, passed: Duration) -> bool {
        self.left <= passed && self.left < self.most / 2
    }
}

fn kind(holder: &Holder) -> Kind {
    if holder.resting { Kind::Rest } else { Kind::Hold }
}

fn bar(kind: Kind, key: &LockKey, client: Option<&ClientInfo>, from: Duration) -> Bar {
    Bar {
        kind,
        key: Some(key.clone()),
        client: client.cloned(),
        from,
        to: from,
        tokens: None,
        began_unseen: false,
        end: End::Open,
        count: 1,
    }
}
