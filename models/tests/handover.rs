//! The hand-over between processes: no schedule breaks it, and some schedule does without each of its rules.

use dlock_models::checking::{explore, explore_until_broken};
use dlock_models::handover::properties::{
    NO_FALSE_LOSS, NO_GHOST_HOLD, NO_GHOST_POSITION, NO_SILENT_LOSS, NOT_STALE, NOT_VACANT,
    ONE_PROOF, TOKENS_GROW, UNANSWERED_ENDS,
};
use dlock_models::handover::{Bounds, Handover, Rule};

const ONE_EACH: Bounds = Bounds::of([1, 1, 1]);
const ONE_TWICE: Bounds = Bounds::of([2, 1, 0]);

/// Explores everything within these bounds: no promise is broken, and each situation is reached.
fn holds(bounds: Bounds) {
    let explored = explore(&Handover::new(bounds));
    println!("{bounds:?}: {explored}");
    assert!(explored.broken.is_empty(), "broken within {bounds:?}");
    assert!(explored.unreached.is_empty(), "the bounds are too small: {bounds:?}");
}

/// Without the rule, some schedule breaks this promise.
fn breaks(rule: Rule, bounds: Bounds, property: &'static str) {
    let explored = explore_until_broken(&Handover::new(bounds).without(rule), property);
    println!("without {rule:?}: {explored}");
    let is_broken = explored.broken.iter().any(|broken| broken.property == property);
    assert!(is_broken, "nothing breaks \"{property}\" without {rule:?}");
}

#[test]
fn three_processes_with_two_late_messages() {
    holds(Bounds { late: 2, cancels: 1, ..ONE_EACH });
}

#[test]
fn a_process_that_waits_twice_with_two_late_messages() {
    holds(Bounds { late: 2, cancels: 1, ..ONE_TWICE });
}

#[test]
fn a_pause() {
    holds(Bounds { late: 1, cancels: 1, pauses: 1, ..ONE_EACH });
}

#[test]
fn a_crash_and_a_restart() {
    holds(Bounds { late: 1, cancels: 1, crashes: 1, restarts: 1, ..ONE_EACH });
}

#[test]
#[ignore = "takes minutes"]
fn larger_bounds() {
    holds(Bounds { late: 2, cancels: 2, ..Bounds::of([2, 2, 0]) });
    holds(Bounds { late: 1, cancels: 1, crashes: 1, restarts: 1, ..Bounds::of([2, 1, 1]) });
    holds(Bounds { late: 1, cancels: 1, crashes: 1, pauses: 1, restarts: 1, ..ONE_EACH });
}

#[test]
fn without_the_echoed_sign_two_hold() {
    breaks(Rule::ProofFromEchoedSign, Bounds { late: 1, ..ONE_EACH }, ONE_PROOF);
}

#[test]
fn with_proof_from_the_receipt_of_a_grant_two_hold() {
    breaks(Rule::ProofFromSending, Bounds { late: 1, ..ONE_EACH }, ONE_PROOF);
}

#[test]
fn with_proof_from_the_receipt_of_a_reply_two_hold() {
    breaks(Rule::ReplyFromSending, Bounds { late: 1, ..ONE_EACH }, ONE_PROOF);
}

#[test]
fn with_an_age_across_a_restart_two_hold() {
    breaks(Rule::AgeWithinOneRun, Bounds { restarts: 1, ..ONE_EACH }, ONE_PROOF);
}

#[test]
fn without_the_provisional_end_a_crashed_head_costs_a_ttl() {
    breaks(Rule::ProvisionalGrant, Bounds { crashes: 1, pauses: 1, ..ONE_EACH }, UNANSWERED_ENDS);
}

#[test]
fn with_signs_that_write_the_end_two_hold() {
    breaks(Rule::NothingShortens, Bounds { late: 1, ..ONE_EACH }, ONE_PROOF);
}

#[test]
fn without_grants_by_signs_a_free_lock_is_left_alone() {
    breaks(Rule::SignsGrant, Bounds { crashes: 1, ..ONE_EACH }, NOT_VACANT);
}

#[test]
fn with_stale_heads_the_dead_are_granted_to() {
    breaks(Rule::StaleHeadsAreDropped, Bounds { crashes: 1, ..ONE_EACH }, NOT_STALE);
}

#[test]
fn without_the_number_of_a_leave_the_next_wait_ends() {
    breaks(
        Rule::LeaveUpToItsNumber,
        Bounds { late: 1, cancels: 1, ..Bounds::of([2, 2, 0]) },
        ONE_PROOF,
    );
}

#[test]
fn without_the_hand_on_of_a_leave_an_abandoned_grant_stays() {
    breaks(Rule::LeaveHandsOn, Bounds { late: 1, cancels: 1, ..ONE_EACH }, NO_GHOST_HOLD);
}

#[test]
fn without_the_release_of_an_unwanted_grant_it_stays() {
    breaks(Rule::UnwantedIsReleased, Bounds { late: 1, cancels: 1, ..ONE_EACH }, NO_GHOST_HOLD);
}

#[test]
fn with_signs_that_create_positions_some_stay() {
    breaks(
        Rule::OnlyEnqueueCreates,
        Bounds { late: 1, cancels: 1, ..ONE_TWICE },
        NO_GHOST_POSITION,
    );
}

#[test]
fn without_the_deadline_of_an_enqueue_a_position_stays() {
    breaks(Rule::EnqueueDeadline, Bounds { late: 1, cancels: 1, ..ONE_TWICE }, NO_GHOST_POSITION);
}

#[test]
fn without_the_note_a_position_stays() {
    breaks(Rule::GoneNote, Bounds { late: 1, cancels: 1, ..ONE_TWICE }, NO_GHOST_POSITION);
}

#[test]
fn without_a_new_enqueue_the_forgotten_wait_for_ever() {
    breaks(Rule::UnknownEnqueuesAnew, Bounds { late: 1, ..ONE_TWICE }, NOT_VACANT);
}

#[test]
fn without_adoption_a_late_leave_hands_on_what_is_held() {
    breaks(Rule::SignAdopts, Bounds { late: 2, cancels: 1, ..ONE_TWICE }, ONE_PROOF);
}

#[test]
fn with_a_token_accepted_twice_tokens_do_not_grow() {
    breaks(Rule::TokenOnce, Bounds { late: 2, ..ONE_TWICE }, TOKENS_GROW);
}

#[test]
fn with_the_grant_of_an_earlier_wait_two_hold() {
    breaks(Rule::EchoOfThisWait, Bounds { late: 1, cancels: 1, ..ONE_TWICE }, ONE_PROOF);
}

#[test]
fn without_the_token_of_a_release_two_hold() {
    breaks(Rule::ReleaseComparesToken, Bounds { late: 1, ..ONE_TWICE }, ONE_PROOF);
}

#[test]
fn without_the_owner_of_a_release_two_hold() {
    breaks(Rule::ReleaseComparesOwner, Bounds { late: 1, ..ONE_EACH }, ONE_PROOF);
}

#[test]
fn without_the_token_of_a_renewal_an_abandoned_grant_stays() {
    breaks(Rule::RenewComparesToken, Bounds { late: 2, cancels: 1, ..ONE_TWICE }, NO_GHOST_HOLD);
}

#[test]
fn without_the_recorded_end_a_release_is_called_a_loss() {
    breaks(Rule::EndIsRecorded, Bounds { late: 1, ..ONE_EACH }, NO_FALSE_LOSS);
}

#[test]
fn with_the_end_of_one_lease_a_release_is_called_a_loss() {
    breaks(Rule::EndOfEachProcess, Bounds { late: 1, ..ONE_EACH }, NO_FALSE_LOSS);
}

#[test]
fn with_a_token_that_was_given_back_two_hold() {
    breaks(
        Rule::GivenBackIsSpent,
        Bounds { late: 2, cancels: 1, ..Bounds::of([2, 1, 1]) },
        ONE_PROOF,
    );
}

#[test]
fn with_a_token_that_was_given_back_a_loss_goes_unnoticed() {
    breaks(Rule::GivenBackIsSpent, Bounds { late: 2, cancels: 1, ..ONE_TWICE }, NO_SILENT_LOSS);
}

#[test]
fn without_a_leave_in_the_release_a_position_stays() {
    breaks(Rule::ReleaseIsALeave, Bounds { late: 1, ..ONE_TWICE }, NO_GHOST_POSITION);
}

#[test]
fn without_the_leave_of_a_direct_grant_it_stays() {
    breaks(Rule::LeaveEndsDirectGrant, Bounds { late: 1, cancels: 1, ..ONE_EACH }, NO_GHOST_HOLD);
}

#[test]
fn without_the_release_of_a_grant_that_is_being_renewed_it_stays() {
    let bounds = Bounds { late: 2, cancels: 1, pauses: 1, ..Bounds::of([1, 1, 0]) };
    breaks(Rule::RenewingIsReleased, bounds, NO_GHOST_HOLD);
}
