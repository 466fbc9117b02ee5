//! One key that tasks of this process wait for: how long each site has held it since the first of them came.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::token::FencingToken;

/// A site that holds or held the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Site {
    Here(&'static str),
    Elsewhere(Arc<str>),
    /// Nobody: the store failed.
    Store,
    /// Another process, or nobody while the store decides.
    Unknown,
    /// One of too many.
    Others,
}

/// How many sites of one key are told apart.
const MAX_SITES: usize = 32;

/// How long one site has held the key in all.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) site: Site,
    /// Of its last hold, if known.
    pub(super) token: Option<FencingToken>,
    total: Duration,
}

/// A task that waits for the key.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) template: &'static str,
    pub(super) site: &'static str,
    pub(super) began: Instant,
    /// The total of each site when the wait began.
    at_begin: Totals,
    /// The totals up to which the wait has been charged. `None`: it has not been charged yet.
    charged: Option<Box<Totals>>,
}

/// The total of each site at some moment. Sites that came later had none.
#[derive(Debug)]
struct Totals {
    /// Without an allocation, because few keys have more sites.
    first: [Duration; 3],
    others: Vec<Duration>,
}

impl Totals {
    fn of(held: &[Held]) -> Self {
        let total = |index: usize| held.get(index).map_or(Duration::ZERO, |held| held.total);
        let first = [total(0), total(1), total(2)];
        Self { first, others: held.iter().skip(first.len()).map(|held| held.total).collect() }
    }

    fn at(&self, index: usize) -> Duration {
        let others = || self.others.get(index - self.first.len());
        self.first.get(index).or_else(others).copied().unwrap_or_default()
    }
}

/// What a wait is charged to one site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge<'a> {
    pub(super) held: &'a Held,
    /// The index of `held`.
    pub(super) index: usize,
    /// Since the last charge.
    pub(super) waited: Duration,
    /// Since the wait began.
    pub(super) in_all: Duration,
}

impl Charge<'_> {
    /// Is it the first one of its wait to this site?
    pub(super) fn is_first(&self) -> bool {
        self.waited == self.in_all
    }
}

/// The waits for one key. While a site holds it, every wait is charged to that site. So it is enough to add up how long
/// each site has held it: what a wait is charged is the difference between its end and its beginning.
#[derive(Debug)]
pub(super) struct Key {
    waits: Vec<Option<Wait>>,
    /// The numbers that are not in use.
    free: Vec<usize>,
    held: Vec<Held>,
    /// The index in `held` of the present holder.
    present: usize,
    /// The index of the holder while none of this process holds the key: the last one that the store showed.
    elsewhere: Option<usize>,
    /// Since when no task of this process has held the key.
    elsewhere_since: Instant,
    /// Up to when the totals count.
    counted: Instant,
    /// When the store was last asked who holds the key.
    pub(super) asked: Option<Instant>,
    /// Where the sums of its pairs of sites are.
    pub(super) sums: SumsOfKey,
}

/// Where the sums of the pairs of one key are: found without hashing.
#[derive(Debug, Default)]
pub(super) struct SumsOfKey(Vec<SumOfPair>);

#[derive(Debug)]
struct SumOfPair {
    template: &'static str,
    waiter: &'static str,
    /// The index of the site that held the key.
    holder: usize,
    sum: usize,
}

impl SumsOfKey {
    /// The index of the pair's sum, which `find` looks for the first time.
    pub(super) fn find(
        &mut self,
        wait: &Wait,
        charge: &Charge<'_>,
        find: impl FnOnce() -> usize,
    ) -> usize {
        let same = |one: &&SumOfPair| {
            one.holder == charge.index
                && std::ptr::eq(one.template, wait.template)
                && std::ptr::eq(one.waiter, wait.site)
        };
        if let Some(found) = self.0.iter().find(same) {
            return found.sum;
        }
        let (template, waiter, sum) = (wait.template, wait.site, find());
        self.0.push(SumOfPair { template, waiter, holder: charge.index, sum });
        sum
    }
}

impl Key {
    pub(super) fn new(since: Instant, holder: Site, token: Option<FencingToken>) -> Self {
        let held = vec![Held { site: holder, token, total: Duration::ZERO }];
        let (waits, free) = (vec![], vec![]);
        let (present, elsewhere, asked) = (0, None, None);
        let (elsewhere_since, counted) = (since, since);
        let sums = SumsOfKey::default();
        Self { waits, free, held, present, elsewhere, elsewhere_since, counted, asked, sums }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.waits.len()
    }

    pub(super) fn waits(&self) -> impl Iterator<Item = &Wait> {
        self.waits.iter().flatten()
    }

    /// When the oldest wait began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waits().map(|wait| wait.began).min()
    }

    /// Whether this is a site of this engine: one that waits for the key, or has held it.
    pub(super) fn knows(&self, site: &str) -> bool {
        let holds = |held: &Held| matches!(held.site, Site::Here(here) if here == site);
        self.held.iter().any(holds) || self.waits().any(|wait| wait.site == site)
    }

    /// Whether the holder is not one of this process, as far as this process knows.
    fn is_held_elsewhere(&self) -> bool {
        !matches!(self.held[self.present].site, Site::Here(_))
    }

    /// For how long the key has been held by somebody of another process, or by nobody.
    pub(super) fn held_elsewhere_for(&self, now: Instant) -> Option<Duration> {
        let since = self.is_held_elsewhere().then_some(self.elsewhere_since)?;
        Some(now.saturating_duration_since(since))
    }

    /// Begins a wait, and returns its number. A wait that began before the totals count is charged from then on only:
    /// the caller counts what was before.
    pub(super) fn begin(
        &mut self,
        template: &'static str,
        site: &'static str,
        began: Instant,
    ) -> usize {
        self.count(began);
        let at_begin = Totals::of(&self.held);
        let wait = Wait { template, site, began, at_begin, charged: None };
        let number = self.free.pop().unwrap_or_else(|| {
            self.waits.push(None);
            self.waits.len() - 1
        });
        self.waits[number] = Some(wait);
        number
    }

    /// Ends a wait, and charges what it has not been charged yet.
    pub(super) fn end(
        &mut self,
        number: usize,
        now: Instant,
        mut charge: impl FnMut(&Wait, Charge<'_>, &mut SumsOfKey),
    ) {
        self.count(now);
        let Some(wait) = self.waits.get_mut(number).and_then(Option::take) else { return };
        self.free.push(number);
        wait.charges(&self.held, |one| charge(&wait, one, &mut self.sums));
    }

    /// Charges all waits up to now.
    pub(super) fn charge(
        &mut self,
        now: Instant,
        mut charge: impl FnMut(&Wait, Charge<'_>, &mut SumsOfKey),
    ) {
        self.count(now);
        for wait in self.waits.iter_mut().flatten() {
            wait.charges(&self.held, |one| charge(wait, one, &mut self.sums));
            wait.charged = Some(Box::new(Totals::of(&self.held)));
        }
    }

    /// Notes who holds the key from now on.
    pub(super) fn hold(&mut self, site: Site, token: Option<FencingToken>, now: Instant) {
        self.count(now);
        if !self.is_held_elsewhere() {
            self.elsewhere_since = now;
        }
        self.present = self.find(site);
        let held = &mut self.held[self.present];
        held.token = token.or(held.token);
    }

    /// Notes that the holder of this process has released the key.
    pub(super) fn release(&mut self, now: Instant) {
        self.count(now);
        if !self.is_held_elsewhere() {
            self.elsewhere_since = now;
        }
        self.present = self.elsewhere.unwrap_or_else(|| self.find(Site::Unknown));
    }

    /// Notes whom the store shows as the holder. It is charged what has not been counted yet, and what comes until more is
    /// known: of the sites of other processes, each is shown in proportion to the time that it holds the key.
    pub(super) fn resolve(&mut self, site: Site, token: Option<FencingToken>, now: Instant) {
        let found = self.find(site);
        self.held[found].token = token;
        self.elsewhere = Some(found);
        if self.is_held_elsewhere() {
            self.present = found;
        }
        self.count(now);
    }

    fn find(&mut self, site: Site) -> usize {
        if let Some(found) = self.held.iter().position(|held| held.site == site) {
            return found;
        }
        if self.held.len() >= MAX_SITES && site != Site::Others {
            return self.find(Site::Others);
        }
        self.held.push(Held { site, token: None, total: Duration::ZERO });
        self.held.len() - 1
    }

    fn count(&mut self, now: Instant) {
        let more = now.saturating_duration_since(self.counted);
        self.held[self.present].total += more;
        self.counted = self.counted.max(now);
    }
}

impl Wait {
    /// What it is charged to each site since its last charge.
    fn charges(&self, held: &[Held], mut each: impl FnMut(Charge<'_>)) {
        let before = self.charged.as_deref().unwrap_or(&self.at_begin);
        for (index, held) in held.iter().enumerate() {
            let waited = held.total.saturating_sub(before.at(index));
            if !waited.is_zero() {
                let in_all = held.total.saturating_sub(self.at_begin.at(index));
                each(Charge { held, index, waited, in_all });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// What the waits were charged: waiter, holder, milliseconds.
    #[derive(Debug, Default)]
    struct Charged(Vec<(&'static str, Site, u128)>);

    impl Charged {
        fn add(&mut self, wait: &Wait, charge: Charge<'_>) {
            self.0.push((wait.site, charge.held.site.clone(), charge.waited.as_millis()));
        }
    }

    #[test]
    fn each_wait_is_charged_to_those_who_held_the_key_meanwhile() {
        let start = Instant::now();
        let at = |ms: u32| start + MILLISECOND * ms;
        let mut key = Key::new(at(0), Site::Here("stock"), None);
        let first = key.begin("k", "first", at(10));
        let second = key.begin("k", "second", at(40));
        key.hold(Site::Here("first"), None, at(100));
        let mut charged = Charged::default();
        key.end(first, at(100), |wait, charge, _| charged.add(wait, charge));
        assert_eq!(charged.0, [("first", Site::Here("stock"), 90)]);
        key.release(at(130));
        key.hold(Site::Here("stock"), None, at(140));
        let mut charged = Charged::default();
        key.end(second, at(145), |wait, charge, _| charged.add(wait, charge));
        let of = |site, ms| ("second", site, ms);
        let expected =
            [of(Site::Here("stock"), 65), of(Site::Here("first"), 30), of(Site::Unknown, 10)];
        assert_eq!(charged.0, expected);
        assert!(key.is_empty());
    }

    #[test]
    fn charges_in_between_change_no_sum() {
        let start = Instant::now();
        let at = |ms: u32| start + MILLISECOND * ms;
        let mut key = Key::new(at(0), Site::Here("a"), None);
        let wait = key.begin("k", "w", at(0));
        let (mut sum, mut firsts) = (Duration::ZERO, 0);
        let mut add = |_: &Wait, charge: Charge<'_>, _: &mut SumsOfKey| {
            sum += charge.waited;
            firsts += usize::from(charge.is_first());
        };
        for ms in 1..100 {
            if ms % 10 == 0 {
                key.hold(Site::Here(if ms % 20 == 0 { "a" } else { "b" }), None, at(ms));
            }
            key.charge(at(ms), &mut add);
        }
        key.end(wait, at(100), &mut add);
        assert_eq!((sum, firsts), (MILLISECOND * 100, 2));
    }

    #[test]
    fn a_holder_that_is_found_out_is_charged_for_the_time_before() {
        let start = Instant::now();
        let at = |ms: u32| start + MILLISECOND * ms;
        let elsewhere = Site::Elsewhere("stock".into());
        let mut key = Key::new(at(0), Site::Unknown, None);
        let wait = key.begin("k", "w", at(0));
        key.resolve(elsewhere.clone(), Some(FencingToken::new(7)), at(50));
        let mut charged = Charged::default();
        key.end(wait, at(60), |wait, charge, _| charged.add(wait, charge));
        assert_eq!(charged.0, [("w", elsewhere, 60)]);
    }

    #[test]
    fn sites_beyond_the_limit_are_counted_together() {
        let start = Instant::now();
        let mut key = Key::new(start, Site::Unknown, None);
        let wait = key.begin("k", "w", start);
        for number in 0..100_u32 {
            let site = Site::Elsewhere(format!("site {number}").into());
            key.hold(site, None, start + MILLISECOND * number);
        }
        let (mut sum, mut sites) = (Duration::ZERO, 0);
        key.end(wait, start + MILLISECOND * 100, |_, charge, _| {
            sum += charge.waited;
            sites += 1;
        });
        assert_eq!((sum, sites), (MILLISECOND * 100, MAX_SITES));
    }

    #[test]
    fn numbers_of_waits_that_ended_are_used_again() {
        let start = Instant::now();
        let mut key = Key::new(start, Site::Unknown, None);
        let stays = key.begin("k", "stays", start);
        let mut last = key.begin("k", "w", start);
        for _ in 0..10_000 {
            let next = key.begin("k", "w", start);
            key.end(last, start, |_, _, _| {});
            last = next;
        }
        assert!(key.waits.len() < 10, "{}", key.waits.len());
        key.end(last, start, |_, _, _| {});
        key.end(stays, start, |_, _, _| {});
        assert!(key.is_empty());
    }
}
