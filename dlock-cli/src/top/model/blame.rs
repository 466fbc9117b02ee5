//! Who is waited for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use dlock_runtime::LockKey;
use dlock_runtime::backend::Holder;

use super::site_of;
use super::timeline::Piece;
use super::wait::Wait;

/// Charged for waits while nobody was seen to hold the key: it was about to be handed over.
pub const NOBODY: &str = "(no holder seen)";

/// Charged instead of the sites beyond [`MOST_SITES`].
pub const OTHERS: &str = "(other sites)";

/// Labels are any text, and the screen may be open for weeks.
const MOST_SITES: usize = 1_000;

/// For how many keys, and waiting sites, a site keeps its sums apart.
const MOST_APART: usize = 1_000;

/// Sites, and how long others have waited for each.
#[derive(Clone, Debug, Default)]
pub struct Blame {
    sites: BTreeMap<String, Site>,
    /// The sites that a present wait has been charged to, so that it counts once for each.
    charged: HashMap<(LockKey, String), HashSet<String>>,
    /// What each present hold was charged with.
    holds: HashMap<(LockKey, u64), Duration>,
}

/// A site that is waited for.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// How long others have waited for it.
    pub waited: Duration,
    /// How many waits were charged to it.
    pub waits: u64,
    /// How long for which key.
    pub keys: HashMap<LockKey, Duration>,
    /// How long which site has waited.
    pub waiters: HashMap<String, Duration>,
    /// Its hold that was waited for longest.
    pub worst_hold: Option<Hold>,
}

/// What one hold was charged with.
#[derive(Clone, Debug)]
pub struct Hold {
    pub key: LockKey,
    pub token: u64,
    pub waited: Duration,
}

impl Blame {
    pub fn sites(&self) -> impl Iterator<Item = (&str, &Site)> {
        self.sites.iter().map(|(name, site)| (name.as_str(), site))
    }

    pub fn site(&self, name: &str) -> Option<&Site> {
        self.sites.get(name)
    }

    /// How long all of them were waited for.
    pub fn total(&self) -> Duration {
        self.sites.values().map(|site| site.waited).sum()
    }

    /// Charges the waits of a piece to its holders, in equal shares.
    pub fn charge(&mut self, key: &LockKey, piece: &Piece<'_>) {
        for wait in &piece.waits {
            let shares = shares(piece.length, piece.holders.len());
            for (position, share) in shares.into_iter().enumerate() {
                self.charge_to(key, piece.holders.get(position).copied(), wait, share);
            }
        }
    }

    /// Forgets the holds and waits that have ended. Their sums stay.
    pub fn retain(
        &mut self,
        is_held: impl Fn(&LockKey, u64) -> bool,
        is_waiting: impl Fn(&LockKey, &str) -> bool,
    ) {
        self.holds.retain(|(key, token), _| is_held(key, *token));
        self.charged.retain(|(key, wait), _| is_waiting(key, wait));
    }

    fn charge_to(
        &mut self,
        key: &LockKey,
        holder: Option<&Holder>,
        wait: &Wait<'_>,
        share: Duration,
    ) {
        let name = holder.map_or(NOBODY, |holder| site_of(holder.client_info.as_ref()));
        let is_known = self.sites.contains_key(name) || self.sites.len() < MOST_SITES;
        let name = if is_known { name } else { OTHERS };
        let site = self.sites.entry(name.to_owned()).or_default();
        site.waited += share;
        add(&mut site.keys, key.clone(), share);
        add(&mut site.waiters, wait.site.to_owned(), share);
        let charged = self.charged.entry((key.clone(), wait.id.clone())).or_default();
        if charged.insert(name.to_owned()) {
            site.waits += 1;
        }
        if let Some(holder) = holder {
            let token = holder.token.get();
            let waited = self.holds.entry((key.clone(), token)).or_default();
            *waited += share;
            site.note(key, token, *waited);
        }
    }
}

impl Site {
    /// The key that it was waited for longest with.
    pub fn worst_key(&self) -> Option<(&LockKey, Duration)> {
        let longest = |(key, waited): &(&LockKey, &Duration)| (**waited, key.as_str().to_owned());
        self.keys.iter().max_by_key(longest).map(|(key, waited)| (key, *waited))
    }

    /// Who has waited for it, the longest first.
    pub fn by_waiter(&self) -> Vec<(&str, Duration)> {
        let mut waiters: Vec<_> =
            self.waiters.iter().map(|(name, waited)| (name.as_str(), *waited)).collect();
        waiters.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        waiters
    }

    fn note(&mut self, key: &LockKey, token: u64, waited: Duration) {
        if self.worst_hold.as_ref().is_none_or(|worst| worst.waited <= waited) {
            self.worst_hold = Some(Hold { key: key.clone(), token, waited });
        }
    }
}

/// Equal shares that add up to the whole to the nanosecond.
fn shares(whole: Duration, holders: usize) -> Vec<Duration> {
    let count = u32::try_from(holders.max(1)).unwrap_or(u32::MAX);
    let share = whole / count;
    let mut shares = vec![share; holders.max(1)];
    shares[0] += whole.saturating_sub(share * count);
    shares
}

/// Adds to a sum. If there are too many, the smaller half is forgotten: the longest are what is looked for.
fn add<K: std::hash::Hash + Eq>(sums: &mut HashMap<K, Duration>, name: K, share: Duration) {
    *sums.entry(name).or_default() += share;
    if sums.len() > MOST_APART {
        let mut all: Vec<_> = sums.values().copied().collect();
        let (_, median, _) = all.select_nth_unstable(MOST_APART / 2);
        let median = *median;
        sums.retain(|_, sum| *sum > median);
    }
}
