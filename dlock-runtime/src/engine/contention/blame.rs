//! What all waits of one engine were charged.

use std::collections::HashMap;
use std::time::Duration;

use super::key::{Charge, Site, Wait};
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

#[derive(Debug, Default)]
struct Sum {
    waits: u64,
    waited: Duration,
    longest: Duration,
    longest_hold: Option<(LockKey, FencingToken)>,
}

#[derive(Debug, Default)]
pub(super) struct Charged {
    sums: HashMap<Pair, Sum>,
    /// What has not been recorded as a metric yet.
    recordable: Vec<Recordable>,
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
    ) {
        let mut pair = Pair {
            backend: backend.index,
            template: wait.template,
            waiter: wait.site,
            holder: charge.held.site.clone(),
        };
        if self.sums.len() >= MAX_PAIRS && !self.sums.contains_key(&pair) {
            pair.holder = Site::Others;
        }
        if cfg!(feature = "metrics") {
            self.note(&pair, charge.waited);
        }
        let sum = self.sums.entry(pair).or_default();
        sum.waits += u64::from(charge.is_first());
        sum.waited += charge.waited;
        if charge.in_all > sum.longest {
            sum.longest = charge.in_all;
            sum.longest_hold = charge.held.token.map(|token| (key.clone(), token));
        }
    }

    /// One entry for each pair, however many waits were charged at once.
    fn note(&mut self, pair: &Pair, waited: Duration) {
        let same = |one: &&mut Recordable| {
            (one.backend, one.template) == (pair.backend, pair.template)
                && one.holder == pair.holder
        };
        if let Some(found) = self.recordable.iter_mut().find(same) {
            found.waited += waited;
            return;
        }
        let Pair { backend, template, ref holder, .. } = *pair;
        self.recordable.push(Recordable { backend, template, holder: holder.clone(), waited });
    }

    pub(super) fn take_recordable(&mut self) -> Vec<Recordable> {
        std::mem::take(&mut self.recordable)
    }

    /// The largest time first.
    pub(super) fn to_blame(&self, name: impl Fn(usize) -> String) -> Vec<Blame> {
        let one = |(pair, sum): (&Pair, &Sum)| Blame {
            backend: name(pair.backend),
            template: pair.template.to_owned(),
            waiter: pair.waiter.to_owned(),
            holder: pair.holder.to_public(),
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
