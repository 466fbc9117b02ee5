//! Keeps a long recording small: short bars of the same kind that follow one another become one.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Bar, End};

/// Merges until at most half of `most` are left, so that this is not done for each new bar. Returns how many of the oldest
/// had to be left out.
pub fn shrink(bars: &mut Vec<Bar>, most: usize) -> u64 {
    let Some(end) = bars.iter().map(|bar| bar.to).max() else { return 0 };
    let mut resolution = end / 4096;
    while bars.len() > most / 2 && resolution <= end {
        resolution = (resolution * 2).max(Duration::from_millis(1));
        merge(bars, resolution, Apart::Keys);
    }
    // Thousands of keys, each held once.
    let mut resolution = end / 4096;
    while bars.len() > most / 2 && resolution <= end {
        resolution = (resolution * 2).max(Duration::from_millis(1));
        merge(bars, resolution, Apart::Sites);
    }
    forget_oldest(bars, most)
}

/// Which bars stay apart, however short they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// Those of different keys.
    Keys,
    /// Those of different sites.
    Sites,
}

fn merge(bars: &mut Vec<Bar>, resolution: Duration, apart: Apart) {
    bars.sort_by_cached_key(|bar| {
        let key = bar.key.clone().filter(|_| apart == Apart::Keys);
        let key = key.map(|key| key.as_str().to_owned());
        (bar.process(), bar.site().to_owned(), bar.kind, key, bar.from)
    });
    let mut merged: Vec<Bar> = Vec::with_capacity(bars.len());
    for bar in bars.drain(..) {
        match merged.last_mut() {
            Some(last) if is_near(last, &bar, resolution) && is_alike(last, &bar, apart) => {
                absorb(last, &bar);
            }
            _ => merged.push(bar),
        }
    }
    *bars = merged;
}

/// Marks stay where they are.
fn is_near(last: &Bar, next: &Bar, resolution: Duration) -> bool {
    let is_short = next.length() <= resolution;
    is_short
        && next.from.saturating_sub(last.to) <= resolution
        && !last.has_mark()
        && !next.has_mark()
}

fn is_alike(last: &Bar, next: &Bar, apart: Apart) -> bool {
    last.kind == next.kind
        && last.site() == next.site()
        && last.process() == next.process()
        && (apart == Apart::Sites || last.key == next.key)
}

fn absorb(last: &mut Bar, next: &Bar) {
    if last.key != next.key {
        last.key = None;
    }
    last.to = last.to.max(next.to);
    last.count += next.count;
    last.end = End::Gone;
    last.tokens = match (last.tokens, next.tokens) {
        (Some(tokens), Some(others)) => Some((tokens.0.min(others.0), tokens.1.max(others.1))),
        (tokens, others) => tokens.or(others),
    };
}

fn forget_oldest(bars: &mut Vec<Bar>, most: usize) -> u64 {
    if bars.len() <= most {
        return 0;
    }
    bars.sort_by_key(|bar| Reverse(bar.to));
    bars.drain(most / 2..).map(|bar| bar.count).sum()
}
