//! The order in which locks are nested, by template. If one task locks `a` and then `b`, and another one `b` and then `a`,
//! they may wait for each other until a `wait` is over. The first such pair of orders is reported before it happens.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Engine;
use super::nesting::{Held, held_by_this_task};
use super::request::{MANUAL, Request};
use crate::inversion::{Inversion, Nesting};
use crate::options::Wait;

/// A lock's template in one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    backend: usize,
    template: &'static str,
    /// Two locks of one template are ordered by their keys: which of them this is.
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    /// The other lock is of another template.
    Only,
    Smaller,
    Larger,
}

/// The orders that were seen.
#[derive(Debug, Default)]
pub(crate) struct LockOrder(Mutex<Graph>);

#[derive(Debug, Default)]
struct Graph {
    /// What was locked under each lock, and how that came about first.
    under: HashMap<Node, HashMap<Node, Nesting>>,
    inversions: Vec<Inversion>,
}

impl LockOrder {
    /// Notes that a call wants a lock. Returns the inversions that it is the first to show.
    fn note(&self, wanted: &Request<'_>, held: &[Held]) -> Vec<Inversion> {
        let stack = || -> Vec<String> {
            let outer = held.iter().rev().map(|one| one.template.to_owned());
            outer.chain([wanted.template.to_owned()]).collect()
        };
        let mut graph = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = vec![];
        for one in held {
            let (outer, inner) = nodes(one, wanted);
            if graph.under.get(&outer).is_some_and(|under| under.contains_key(&inner)) {
                continue;
            }
            let nesting = Nesting::new(one.template, wanted.template, wanted.site(), stack());
            if let Some(other) = graph.path(inner, outer) {
                found.push(Inversion::new(nesting.clone(), other));
            }
            graph.under.entry(outer).or_default().insert(inner, nesting);
        }
        graph.inversions.extend(found.iter().cloned());
        found
    }

    pub(crate) fn inversions(&self) -> Vec<Inversion> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).inversions.clone()
    }
}

fn nodes(held: &Held, wanted: &Request<'_>) -> (Node, Node) {
    let (mut outer, mut inner) = (Side::Only, Side::Only);
    if (held.backend, held.template) == (wanted.backend.index, wanted.template) {
        (outer, inner) = match held.key.cmp(&wanted.key) {
            Ordering::Less => (Side::Smaller, Side::Larger),
            Ordering::Greater | Ordering::Equal => (Side::Larger, Side::Smaller),
        };
    }
    let node = |backend, template, side| Node { backend, template, side };
    (node(held.backend, held.template, outer), node(wanted.backend.index, wanted.template, inner))
}

impl Graph {
    /// How, one after the other, locks were nested from one to the other, if they were.
    fn path(&self, from: Node, to: Node) -> Option<Vec<Nesting>> {
        let mut seen = HashSet::from([from]);
        let mut paths = vec![(from, vec![])];
        while let Some((node, path)) = paths.pop() {
            for (next, nesting) in self.under.get(&node).into_iter().flatten() {
                let mut path = path.clone();
                path.push(nesting.clone());
                if *next == to {
                    return Some(path);
                }
                if seen.insert(*next) {
                    paths.push((*next, path));
                }
            }
        }
        None
    }
}

/// Notes in which order this task nests its locks, if it holds any.
pub(super) fn note(engine: &Arc<Engine>, wanted: &Request<'_>) {
    if wanted.template == MANUAL || wanted.wait == Wait::UpTo(Duration::ZERO) {
        // Unrelated manual locks have one template. A call that does not wait waits for nobody.
        return;
    }
    let mut held = held_by_this_task(engine);
    held.retain(|one| one.template != MANUAL && one.key != wanted.key);
    if held.is_empty() {
        return;
    }
    for inversion in engine.lock_order.note(wanted, &held) {
        tracing::warn!(
            target: "dlock",
            %inversion,
            "lock order inversion: tasks that nest these locks in different orders can wait for each other; always nest them in one order, or lock them together with `keys`"
        );
    }
}
