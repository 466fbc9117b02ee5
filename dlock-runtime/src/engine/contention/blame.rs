//! What all waits of one engine were charged.

use std::collections::HashMap;
use std::time::Duration;

use super::key::{Charge, Site, SumsOfKey, Wait};
use crate::contention::{Blame, HolderSite};
use crate::engine::NamedBackend;
use crate::key::LockKey;
use crate::token::FencingToken;

/// How many pairs of sites are told apart. Labels of other processes may be of any number.
const MAX_PAIRS: usize = 1_000;

/// Who waited for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pair {
    backend: usize,
    template: &'static str,
    waiter: &'static str,
    holder: Site,
}

#[derive(Debug)]
struct Sum {
    pair: Pair,
    waits: u64,
    waited: Duration,
    longest: Duration,
    longest_hold: Option<(LockKey, FencingToken)>,
    /// What has not been recorded as a metric yet.
    unrecorded: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Charged {
    sums: Vec<Sum>,
    indices: HashMap<Pair, usize>,
    /// The indices of the sums of which something has not been recorded yet.
    unrecorded: Vec<usize>,
}

/// A charge for a metric.
#[derive(Debug)]
pub(super) struct Recordable {
    pub(super) backend: usize,
    pub(super) template: &'static str,
    pub(super) holder: Site,
    pub(super) waited: Duration,
}

impl Charged {
    /// Adds what a wait for this key is charged.
    pub(super) fn add(
        &mut self,
        backend: &NamedBackend,
        key: &LockKey,
        wait: &Wait,
        charge: &Charge<'_>,
        sums: &mut SumsOfKey,
    ) {
        let index = sums.find(wait, charge, || {
            self.find(Pair {
                backend: backend.index,
                template: wait.template,
                waiter: wait.site,
                holder: charge.held.site.clone(),
            })
        });
        let sum = &mut self.sums[index];
        sum.waits += u64::from(charge.is_first());
        sum.waited += charge.waited;
        if charge.in_all > sum.longest {
            sum.longest = charge.in_all;
            sum.longest_hold = charge.held.token.map(|token| (key.clone(), token));
        }
        if cfg!(feature = "metrics") {
            if sum.unrecorded.is_zero() {
                self.unrecorded.push(index);
            }
            sum.unrecorded += charge.waited;
        }
    }

    /// The index of the pair's sum.
    fn find(&mut self, mut pair: Pair) -> usize {
        if self.sums.len() >= MAX_PAIRS && !self.indices.contains_key(&pair) {
            pair.holder = Site::Others;
        }
        if let Some(found) = self.indices.get(&pair) {
            return *found;
        }
        self.indices.insert(pair.clone(), self.sums.len());
        self.sums.push(Sum {
            pair,
            waits: 0,
            waited: Duration::ZERO,
            longest: Duration::ZERO,
            longest_hold: None,
            unrecorded: Duration::ZERO,
        });
        self.sums.len() - 1
    }

    /// What has not been recorded: one entry for each pair, however many waits were charged.
    pub(super) fn take_recordable(&mut self) -> Vec<Recordable> {
        let sums = &mut self.sums;
        let recordable = self.unrecorded.drain(..).map(|index| {
            let Sum { pair, unrecorded, .. } = &mut sums[index];
            let Pair { backend, template, holder, .. } = &*pair;
            let waited = std::mem::take(unrecorded);
            Recordable { backend: *backend, template, holder: holder.clone(), waited }
        });
        recordable.collect()
    }

    /// The largest time first.
    pub(super) fn to_blame(&self, name: impl Fn(usize) -> String) -> Vec<Blame> {
        let one = |sum: &Sum| Blame {
            backend: name(sum.pair.backend),
            template: sum.pair.template.to_owned(),
            waiter: sum.pair.waiter.to_owned(),
            holder: sum.pair.holder.to_public(),
            waits: sum.waits,
            waited: sum.waited,
            longest: sum.longest,
            longest_hold: sum.longest_hold.clone(),
        };
        let mut blame: Vec<Blame> = self.sums.iter().map(one).collect();
        blame.sort_by(Blame::compare);
        blame
    }
}

impl Site {
    fn to_public(&self) -> HolderSite {
        match self {
            Self::Here(site) => HolderSite::Here((*site).to_owned()),
            Self::Elsewhere(site) => HolderSite::Elsewhere(site.to_string()),
            Self::Store => HolderSite::Store,
            Self::Unknown => HolderSite::Unknown,
            Self::Others => HolderSite::Others,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Here(site) => site,
            Self::Elsewhere(site) => site,
            Self::Store => HolderSite::Store.name(),
            Self::Unknown => HolderSite::Unknown.name(),
            Self::Others => HolderSite::Others.name(),
        }
    }
}
