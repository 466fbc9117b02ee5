//! Fenced Redlock: no schedule breaks it, and some schedule does without each rule that it needs.

use dlock_models::checking::{explore, explore_until_broken};
use dlock_models::redlock::properties::{LATE_REFUSED, NOT_RESTORED, ONE_PROOF, TOKENS_GROW};
use dlock_models::redlock::{Bounds, Redlock, Rule};

const TWO: Bounds = Bounds::of([1, 1, 0]);
const RETRY: Bounds = Bounds::of([2, 1, 0]);
const THREE: Bounds = Bounds::of([1, 1, 1]);

/// Explores everything within these bounds: no promise is broken, and each situation is reached.
fn holds(bounds: Bounds) {
    let explored = explore(&Redlock::new(bounds));
    println!("{bounds:?}: {explored}");
    assert!(explored.broken.is_empty(), "broken within {bounds:?}");
    assert!(explored.unreached.is_empty(), "the bounds are too small: {bounds:?}");
}

/// Without the rule, some schedule breaks this promise.
fn breaks(rule: Rule, bounds: Bounds, property: &'static str) {
    let explored = explore_until_broken(&Redlock::new(bounds).without(rule), property);
    println!("without {rule:?}: {explored}");
    let is_broken = explored.broken.iter().any(|broken| broken.property == property);
    assert!(is_broken, "nothing breaks \"{property}\" without {rule:?}");
}

/// Without the rule, nothing is broken all the same: it is for something that the model leaves out.
fn is_not_needed(rule: Rule, bounds: Bounds) {
    let explored = explore(&Redlock::new(bounds).without(rule));
    println!("without {rule:?}: {explored}");
    assert!(explored.broken.is_empty(), "{rule:?} is needed");
}

#[test]
fn two_clients_with_two_late_messages() {
    holds(Bounds { late: 2, ..TWO });
}

#[test]
fn a_retry_with_a_crash() {
    holds(Bounds { late: 1, crashes: 1, ..RETRY });
}

#[test]
fn a_node_that_forgets() {
    holds(Bounds { late: 1, restarts: 1, ..TWO });
}

#[test]
fn three_clients_with_a_crash() {
    holds(Bounds { crashes: 1, ..THREE });
}

#[test]
fn with_a_majority_of_those_who_answered_two_hold() {
    breaks(Rule::MajorityOfAll, Bounds { late: 2, ..TWO }, ONE_PROOF);
}

#[test]
fn with_validity_from_the_receipt_two_hold() {
    breaks(Rule::ProofFromSending, TWO, ONE_PROOF);
}

#[test]
fn without_the_write_back_a_token_is_smaller() {
    breaks(Rule::WriteBack, Bounds { late: 1, ..THREE }, TOKENS_GROW);
}

#[test]
fn without_the_last_token_one_is_smaller() {
    breaks(Rule::LastToken, TWO, TOKENS_GROW);
}

#[test]
fn without_the_time_in_tokens_a_forgetful_node_repeats_one() {
    breaks(Rule::TokenIsTime, Bounds { late: 2, restarts: 1, ..TWO }, TOKENS_GROW);
}

#[test]
fn with_proposals_of_wild_clocks_a_forgetful_node_repeats_one() {
    breaks(Rule::Tolerance, Bounds { late: 2, restarts: 1, ..Bounds::of([1, 0, 1]) }, TOKENS_GROW);
}

#[test]
fn without_the_quarantine_two_hold() {
    breaks(Rule::Quarantine, Bounds { restarts: 1, ..TWO }, ONE_PROOF);
}

#[test]
fn without_the_run_a_late_acquire_is_granted() {
    breaks(Rule::RunIsNamed, Bounds { late: 1, restarts: 1, ..TWO }, LATE_REFUSED);
}

#[test]
fn without_the_tombstone_of_a_release_a_late_acquire_is_granted() {
    breaks(Rule::Tombstone, Bounds { late: 1, ..TWO }, LATE_REFUSED);
}

#[test]
fn without_the_tombstone_of_a_retraction_a_late_acquire_is_granted() {
    breaks(Rule::RetractedTombstone, Bounds { late: 1, ..TWO }, LATE_REFUSED);
}

#[test]
fn without_the_tombstone_of_a_renewal_a_late_acquire_is_granted() {
    breaks(Rule::RenewalTombstone, Bounds { late: 1, ..TWO }, LATE_REFUSED);
}

#[test]
fn without_the_round_of_a_release_two_hold() {
    breaks(Rule::ReleaseComparesRound, Bounds { late: 1, ..RETRY }, ONE_PROOF);
}

#[test]
fn with_renewals_that_heed_no_tombstone_one_restores_a_lock() {
    breaks(Rule::RenewalHeedsTombstone, Bounds { late: 1, ..TWO }, NOT_RESTORED);
}

#[test]
fn without_a_tombstone_for_a_renewal_one_restores_a_lock() {
    breaks(Rule::TombstoneForRenewal, Bounds { late: 1, ..TWO }, NOT_RESTORED);
}

/// A lease that ends in time outlasts every proof that counts on it, so a node that raises a token always shows its
/// owner. The rules are for nodes whose leases end early, where the order of tokens has to be true all the same.
#[test]
fn in_time_leases_need_no_comparison_in_a_raise() {
    is_not_needed(Rule::RaiseComparesOwner, Bounds { late: 2, ..TWO });
    is_not_needed(Rule::RaiseComparesRound, Bounds { late: 2, ..TWO });
    is_not_needed(Rule::OnlyHeard, Bounds { late: 2, ..TWO });
}

/// The renewal restores the lock on such a node, so that it may count. But it may have forgotten a revocation.
#[test]
fn a_renewal_on_a_forgetful_node_could_count_but_for_revocation() {
    is_not_needed(Rule::QuarantinedRenewal, Bounds { late: 1, restarts: 1, ..TWO });
}
