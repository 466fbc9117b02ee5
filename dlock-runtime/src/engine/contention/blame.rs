//! What all waits of one engine were charged.

use std::collections::HashMap;
use std::time::Duration;

use super::key::{Charge, Site, Wait};
use crate::contention::{Blame, HolderSite};
use crate::engine::NamedBackend;
use crate::engine::telemetry::{Labels, meters};
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
pub(super) struct Charged(HashMap<Pair, Sum>);

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
        if self.0.len() >= MAX_PAIRS && !self.0.contains_key(&pair) {
            pair.holder = Site::Others;
        }
        let labels = Labels { template: wait.template, key, store: backend.as_store() };
        meters::blamed(labels, pair.holder.name(), charge.waited);
        let sum = self.0.entry(pair).or_default();
        sum.waits += u64::from(charge.is_first());
        sum.waited += charge.waited;
        if charge.in_all > sum.longest {
            sum.longest = charge.in_all;
            sum.longest_hold = charge.held.token.map(|token| (key.clone(), token));
        }
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
        let mut blame: Vec<Blame> = self.0.iter().map(one).collect();
        blame.sort_by(Blame::compare);
        blame
    }
}

impl Site {
    fn to_public(&self) -> HolderSite {
        match self {
            Self::Here(site) => HolderSite::Here((*site).to_owned()),
            Self::Elsewhere(site) => HolderSite::Elsewhere(site.to_string()),
            Self::Unknown => HolderSite::Unknown,
            Self::Others => HolderSite::Others,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Here(site) => site,
            Self::Elsewhere(site) => site,
            Self::Unknown => HolderSite::Unknown.name(),
            Self::Others => HolderSite::Others.name(),
        }
    }
}
