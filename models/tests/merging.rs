//! States that count as one have the same future.
//!
//! The checker tells states apart by their hash, which leaves out what nothing will look at. Here all states are told
//! apart by equality, within bounds that are small enough for that: states with one hash must lead to the same hashes.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use dlock_models::handover::{self, Handover};
use dlock_models::redlock::{self, Redlock};
use stateright::Model;

fn hash<T: Hash>(state: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// How many states there are, and how many the checker sees. States beyond a limit are not looked at.
fn merged<M>(model: &M, is_inside: fn(&M::State) -> bool) -> (usize, usize)
where
    M: Model,
    M::State: Clone + Eq + Hash + std::fmt::Debug,
{
    let mut pending = model.init_states();
    let mut seen: HashSet<_> = pending.iter().cloned().collect();
    let mut futures: HashMap<u64, (M::State, BTreeSet<u64>)> = HashMap::new();
    while let Some(state) = pending.pop() {
        let next = model.next_states(&state);
        let future: BTreeSet<_> = next.iter().map(hash).collect();
        let known = futures.entry(hash(&state)).or_insert_with(|| (state.clone(), future.clone()));
        assert!(known.1 == future, "not the same:\n{:?}\n{state:?}", known.0);
        let next = next.into_iter().filter(is_inside);
        pending.extend(next.filter(|next| seen.insert(next.clone())));
    }
    (seen.len(), futures.len())
}

fn of_the_hand_over(bounds: handover::Bounds) {
    let (states, merged) = merged(&Handover::new(bounds), |_| true);
    println!("{states} states of the hand-over count as {merged}");
    assert!(merged < states);
}

fn of_redlock(bounds: redlock::Bounds) {
    let (states, merged) = merged(&Redlock::new(bounds), |state| state.now < 12);
    println!("{states} states of Redlock count as {merged}");
    assert!(merged < states);
}

#[test]
fn of_a_process_that_waits_twice() {
    let waits = handover::Bounds::of([2, 1, 0]);
    of_the_hand_over(handover::Bounds { cancels: 1, restarts: 1, ..waits });
}

#[test]
fn of_processes_that_fail() {
    let waits = handover::Bounds::of([1, 1, 0]);
    of_the_hand_over(handover::Bounds { late: 1, crashes: 1, ..waits });
}

#[test]
fn of_clients_that_crash() {
    of_redlock(redlock::Bounds { crashes: 1, ..redlock::Bounds::of([1, 1, 0]) });
}

#[test]
fn of_nodes_that_forget() {
    of_redlock(redlock::Bounds { restarts: 1, ..redlock::Bounds::of([1, 1, 0]) });
}

#[test]
#[ignore = "takes minutes"]
fn of_larger_bounds() {
    of_redlock(redlock::Bounds { late: 1, ..redlock::Bounds::of([1, 1, 0]) });
    of_redlock(redlock::Bounds { crashes: 1, ..redlock::Bounds::of([2, 1, 0]) });
    let waits = handover::Bounds::of([2, 1, 0]);
    of_the_hand_over(handover::Bounds { late: 1, cancels: 1, ..waits });
    of_the_hand_over(handover::Bounds { cancels: 1, pauses: 1, ..waits });
}
