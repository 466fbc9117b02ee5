//! Which bars are in one row: those of a process and a key, or a process and a site if it has many keys.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use dlock_runtime::LockKey;

use crate::watch::record::{Bar, Process};

/// How many rows are shown.
pub const MOST_ROWS: usize = 300;

/// A process with more keys than that has a row for each site.
const MANY_KEYS: usize = 24;

/// How many sites have a colour of their own.
pub const COLOURS: usize = 12;

/// A row of a process.
pub struct Lane<'a> {
    pub name: Name<'a>,
    pub bars: Vec<&'a Bar>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name<'a> {
    Key(&'a str),
    /// All keys of a site.
    Site(&'a str),
}

/// All rows, those of the process that was seen first at the top; and the colours of sites.
pub struct Lanes<'a> {
    pub processes: Vec<(Process, Vec<Lane<'a>>)>,
    pub colours: Colours,
    /// How many rows are left out.
    pub left_out: usize,
}

/// The sites, those with the longest bars first.
pub struct Colours(Vec<String>);

impl Colours {
    fn of(bars: &[&Bar]) -> Self {
        let mut sums: HashMap<&str, Duration> = HashMap::new();
        for bar in bars {
            *sums.entry(bar.site()).or_default() += bar.length();
        }
        let mut sites: Vec<_> = sums.into_iter().collect();
        sites.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        Self(sites.into_iter().map(|(site, _)| site.to_owned()).collect())
    }

    /// Those with a colour of their own.
    pub fn sites(&self) -> &[String] {
        &self.0[..self.0.len().min(COLOURS)]
    }

    pub fn others(&self) -> usize {
        self.0.len() - self.sites().len()
    }

    /// The number of a colour; one more than there are for all other sites.
    pub fn of_site(&self, site: &str) -> usize {
        self.sites().iter().position(|other| other == site).unwrap_or(COLOURS)
    }
}

impl<'a> Lanes<'a> {
    pub fn of(bars: &[&'a Bar]) -> Self {
        let colours = Colours::of(bars);
        let mut processes: BTreeMap<Process, Vec<&Bar>> = BTreeMap::new();
        for bar in bars {
            processes.entry(bar.process()).or_default().push(bar);
        }
        let processes = processes.into_iter().map(|(process, bars)| (process, lanes(bars)));
        let mut lanes = Self { processes: processes.collect(), colours, left_out: 0 };
        lanes.processes.sort_by_key(|(_, lanes)| {
            lanes.iter().flat_map(|lane| &lane.bars).map(|bar| bar.from).min()
        });
        lanes.leave_out();
        lanes
    }

    /// Leaves out the rows with the shortest bars.
    fn leave_out(&mut self) {
        let all = self.processes.iter().flat_map(|(_, lanes)| lanes);
        let mut sums: Vec<_> = all.map(Lane::busy).collect();
        if sums.len() <= MOST_ROWS {
            return;
        }
        self.left_out = sums.len() - MOST_ROWS;
        sums.sort_unstable();
        let least = sums[self.left_out];
        let mut excess = sums[self.left_out..].iter().filter(|sum| **sum == least).count();
        for (_, lanes) in &mut self.processes {
            lanes.retain(|lane| match lane.busy() {
                busy if busy == least && excess > 0 => {
                    excess -= 1;
                    true
                }
                busy => busy > least,
            });
        }
        self.processes.retain(|(_, lanes)| !lanes.is_empty());
    }
}

impl Lane<'_> {
    fn busy(&self) -> Duration {
        self.bars.iter().map(|bar| bar.length()).sum()
    }
}

fn lanes(bars: Vec<&Bar>) -> Vec<Lane<'_>> {
    let keys: HashSet<_> = bars.iter().map(|bar| bar.key.as_ref().map(LockKey::as_str)).collect();
    let has_many = keys.len() > MANY_KEYS;
    let mut lanes: BTreeMap<Name<'_>, Vec<&Bar>> = BTreeMap::new();
    for bar in bars {
        let name = match &bar.key {
            Some(key) if !has_many => Name::Key(key.as_str()),
            _ => Name::Site(bar.site()),
        };
        lanes.entry(name).or_default().push(bar);
    }
    lanes.into_iter().map(|(name, bars)| Lane { name, bars }).collect()
}
