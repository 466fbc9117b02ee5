//! Contention as a process sees it: who waits, and for whom.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::key::LockKey;
use crate::token::FencingToken;

/// Who waited for whom, in this process and since its registry was built; returned by
/// [`Registry::contention`](crate::Registry::contention).
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Contention {
    /// The time that callers waited, by the site that waited and the site that held the lock meanwhile. The largest
    /// time comes first.
    pub blame: Vec<Blame>,
    /// The callers that wait now. The one that has waited longest comes first.
    pub waiting: Vec<Waiting>,
}

/// The time that callers of one site waited while another site held the lock.
///
/// A site is an annotated function with its module (`shop::purchase`), or the template of a manual call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Blame {
    /// The backend's registered name.
    pub backend: String,
    /// The template of the lock that was waited for.
    pub template: String,
    /// The site that waited.
    pub waiter: String,
    /// The site that held the lock.
    pub holder: HolderSite,
    /// How many calls waited.
    pub waits: u64,
    /// For how long they waited, added up. Those that still wait are included.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialized::seconds"))]
    pub waited: Duration,
    /// The longest time that one call waited for this holder.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialized::seconds"))]
    pub longest: Duration,
    /// The key and the last known token of that holder.
    pub longest_hold: Option<(LockKey, FencingToken)>,
}

/// The site that held a lock while others waited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HolderSite {
    /// A site of this process.
    Here(String),
    /// A site of another process, or a holder that shares the lock, as the store shows it.
    Elsewhere(String),
    /// Nobody: the store failed, or did not answer.
    Store,
    /// Not known: another process for a short time, or nobody while the lock was on its way to the next holder.
    Unknown,
    /// One of the sites that came after the first thousand.
    Others,
}

impl HolderSite {
    /// Returns its name: the site, or what stands for it in parentheses.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Here(site) | Self::Elsewhere(site) => site,
            Self::Store => "(store)",
            Self::Unknown => "(elsewhere)",
            Self::Others => "(others)",
        }
    }
}

impl fmt::Display for HolderSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The callers of one site that wait for locks of one template.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Waiting {
    /// The backend's registered name.
    pub backend: String,
    /// The template of the lock.
    pub template: String,
    /// The site that waits.
    pub waiter: String,
    /// How many calls wait.
    pub count: usize,
    /// How long the first of them has waited.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialized::seconds"))]
    pub oldest: Duration,
    /// The key that it waits for.
    pub oldest_key: LockKey,
}

impl Contention {
    /// Returns the total time that callers waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.blame.iter().map(|blame| blame.waited).sum()
    }

    /// Writes the blame as folded stacks, one line each: `holder;template;waiter microseconds`. Tools that draw flame
    /// graphs read this. The widest frame at the bottom is the site that others waited for most.
    #[must_use]
    pub fn folded(&self) -> String {
        let mut text = String::new();
        for Blame { template, waiter, holder, waited, .. } in &self.blame {
            let [holder, template, waiter] = [holder.name(), template, waiter].map(frame);
            // Writing into a `String` does not fail.
            let _ = writeln!(text, "{holder};{template};{waiter} {}", waited.as_micros());
        }
        text
    }
}

/// The name of a frame, without what separates frames and lines.
fn frame(name: &str) -> String {
    name.replace(|character: char| character == ';' || character.is_whitespace(), "_")
}

impl Blame {
    /// Orders by the time waited, the largest first, then by name.
    pub(crate) fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let names = |one: &Self| [one.template.clone(), one.waiter.clone(), one.holder.to_string()];
        other.waited.cmp(&self.waited).then_with(|| names(self).cmp(&names(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_stacks_have_one_line_for_each_blame() {
        let blame = |holder, waited| Blame {
            backend: "redis".to_owned(),
            template: "product:<id>".to_owned(),
            waiter: "shop::purchase".to_owned(),
            holder,
            waits: 1,
            waited,
            longest: waited,
            longest_hold: None,
        };
        let here = HolderSite::Here("shop; take stock".to_owned());
        let contention = Contention {
            blame: vec![
                blame(here, Duration::from_millis(2)),
                blame(HolderSite::Unknown, Duration::from_micros(7)),
            ],
            waiting: vec![],
        };
        let expected = "shop__take_stock;product:<id>;shop::purchase 2000\n\
                        (elsewhere);product:<id>;shop::purchase 7\n";
        assert_eq!(contention.folded(), expected);
        assert_eq!(contention.waited(), Duration::from_micros(2_007));
    }
}
