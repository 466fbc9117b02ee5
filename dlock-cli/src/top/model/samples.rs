//! For tests: what happened to a lock, and what a sample shows of it.

use std::time::{Duration, SystemTime};

use dlock_runtime::backend::{Holder, LockState, Waiter};
use dlock_runtime::{ClientInfo, FencingToken, LockKey, Mode, OwnerId};

use super::Moment;

/// A hold or a wait: who, and when.
#[derive(Clone, Debug)]
pub struct Span {
    pub site: &'static str,
    /// The token of a hold, the owner of a wait.
    pub id: u64,
    pub from: Duration,
    pub to: Duration,
}

/// All holds and waits of a key.
#[derive(Clone, Debug)]
pub struct History {
    pub key: &'static str,
    pub holds: Vec<Span>,
    pub waits: Vec<Span>,
}

pub fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// The moment so long after the first sample.
pub fn at(elapsed: Duration) -> Moment {
    Moment { elapsed, clock: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + elapsed }
}

pub fn span(site: &'static str, id: u64, from: f64, to: f64) -> Span {
    Span { site, id, from: secs(from), to: secs(to) }
}

pub fn client(site: &str, process_id: u64, since: Duration) -> ClientInfo {
    let since = at(since).clock.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let host = process_id % 3 + 1;
    let text = format!("shop-{host},{process_id},{},{site}", since.as_micros());
    ClientInfo::parse(&text).expect("a client info")
}

impl Span {
    fn is_on(&self, at: Duration) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// How long both lasted.
    fn overlap(&self, other: &Self) -> Duration {
        self.to.min(other.to).saturating_sub(self.from.max(other.from))
    }

    fn holder(&self, now: Duration) -> Holder {
        let ttl = Duration::from_secs(30);
        let left = ttl.saturating_sub(Duration::from_nanos(
            u64::try_from(now.saturating_sub(self.from).as_nanos()).expect("not that long")
                % 10_000_000_000,
        ));
        Holder::new(Some(owner(self.id)), FencingToken::new(self.id), left)
            .with_client_info(Some(client(self.site, 4_700 + self.id % 7, self.from)))
    }

    fn waiter(&self) -> Waiter {
        let client = client(self.site, 4_700 + self.id % 7, self.from);
        Waiter::new(Some(owner(self.id)), Mode::Exclusive, Some(client))
    }
}

fn owner(id: u64) -> OwnerId {
    OwnerId::from_bytes(u128::from(id).to_be_bytes())
}

impl History {
    pub fn state(&self, now: Duration) -> LockState {
        let on = |spans: &[Span]| {
            let first = spans.partition_point(|span| span.to <= now).saturating_sub(8);
            let near: Vec<_> = spans[first..].iter().take(64).cloned().collect();
            near.into_iter().filter(|span| span.is_on(now)).collect::<Vec<_>>()
        };
        let (holders, waiters) = (on(&self.holds), on(&self.waits));
        LockState::new(
            LockKey::from(self.key),
            holders.iter().map(|hold| hold.holder(now)).collect(),
            waiters.iter().map(Span::waiter).collect(),
        )
    }

    /// How long waits have lasted until then, while this site held the key. Waits are in the order of their ends.
    pub fn waited_for(&self, site: &str, until: Duration) -> Duration {
        let holds = self.holds.iter().filter(|hold| hold.site == site);
        let waited = holds.map(|hold| {
            let hold = Span { to: hold.to.min(until), ..hold.clone() };
            let first = self.waits.partition_point(|wait| wait.to <= hold.from);
            self.waits[first..].iter().take(32).map(|wait| hold.overlap(wait)).sum::<Duration>()
        });
        waited.sum()
    }
}

/// A night in a shop: the inventory holds each product for nine tenths of the time, `cycle` by `cycle`, and customers wait
/// in line behind it. Each purchase waits for `depth` cycles or a little less.
pub fn night(key: &'static str, cycle: f64, cycles: u32, depth: f64, first: u64) -> History {
    let (mut holds, mut waits) = (Vec::new(), Vec::new());
    let mut random = first.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for number in 0..cycles {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let early = f64::from(u32::try_from(random >> 40).expect("24 bits")) / f64::from(1 << 24);
        let begin = f64::from(number) * cycle;
        let (turn, end) = (begin + 0.9 * cycle, begin + cycle);
        let id = first + 2 * u64::from(number);
        holds.push(span("shop::nightly_inventory", id, begin, turn));
        holds.push(span("shop::purchase", id + 1, turn, end));
        let came = (turn - cycle * (depth - early)).max(0.0);
        waits.push(span("shop::purchase", id + 1, came, turn));
        waits.push(span("shop::nightly_inventory", id + 2, turn + 0.05 * cycle, end));
    }
    History { key, holds, waits }
}
