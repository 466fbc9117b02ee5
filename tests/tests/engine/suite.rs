//! Tests the conformance suite itself: it passes a sound store, and catches every defect with the
//! rule that covers it.

use std::time::Duration;

use dlock_runtime::backend::{Attempt, Backend, Claim, Memory, Release};
use dlock_runtime::testing::{Call, Report, Suite, Tap};
use dlock_tests::careless::{Careless, Carelessness};
use dlock_tests::faulty::{Defect, Faulty};
use futures_util::future::join_all;

async fn check(defect: Defect, only: Option<&str>) -> Report {
    let store = Faulty::new(defect);
    let mut suite = Suite::new(move || std::future::ready(Ok(store.clone())));
    if let Some(rule) = only {
        suite = suite.only(&[rule]);
    }
    suite.run().await
}

async fn assert_caught(defect: Defect, rule: &str) {
    let report = check(defect, Some(rule)).await;
    assert_eq!(report.checked(), 1, "there is no rule `{rule}`");
    assert_eq!(report.broken().count(), 1, "`{rule}` does not catch {defect:?}");
    let control = check(Defect::None, Some(rule)).await;
    control.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_passes() {
    let report = check(Defect::None, None).await;
    report.assert_passed();
    assert!(report.checked() >= 74, "only {} rules", report.checked());
}

#[tokio::test]
async fn a_release_without_owner_check_is_caught() {
    assert_caught(Defect::ReleaseWithoutOwnerCheck, "only_the_owner_releases").await;
}

#[tokio::test]
async fn a_validity_counted_from_the_reply_is_caught() {
    assert_caught(Defect::ValidityFromReply, "validity_ends_before_the_lease").await;
}

#[tokio::test]
async fn a_constant_token_is_caught() {
    assert_caught(Defect::ConstantToken, "tokens_grow_with_every_grant").await;
}

#[tokio::test]
async fn a_token_drawn_before_the_wait_is_caught() {
    assert_caught(Defect::TokenBeforeWait, "a_token_is_drawn_after_the_wait").await;
}

#[tokio::test]
async fn an_acquire_that_is_not_atomic_is_caught() {
    assert_caught(Defect::AcquireNotAtomic, "one_of_many_simultaneous_tries_wins").await;
}

#[tokio::test(start_paused = true)]
async fn a_missed_wake_up_is_caught() {
    assert_caught(Defect::MissedWakeUp, "a_watch_hears_a_release").await;
}

#[tokio::test]
async fn a_renewal_that_revives_is_caught() {
    assert_caught(Defect::RenewalRevives, "a_renewal_after_release_revives_nothing").await;
}

#[tokio::test]
async fn a_lease_leaked_on_cancel_is_caught() {
    assert_caught(Defect::LeakOnCancel, "a_run_dropped_at_any_step_frees_its_key").await;
}

#[tokio::test]
async fn a_revocation_that_does_not_end_or_ends_too_soon_is_caught() {
    let rule = "a_revoked_hold_ends_by_itself_and_not_before";
    assert_caught(Defect::RevokedIsRenewed, rule).await;
    assert_caught(Defect::RevocationFrees, rule).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_acquire_that_is_granted_late_is_caught() {
    let rule = "an_acquire_executed_after_its_release_grants_nothing";
    assert_caught(Defect::LateAcquireGrants, rule).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_that_show_under_load_are_caught() {
    assert_caught(Defect::AcquireNotAtomic, "crowds_of_several_processes_get_through").await;
    assert_caught(Defect::ConstantToken, "a_crowd_of_one_process_gets_through").await;
}

async fn check_kinds(how: Carelessness, rule: &str) -> Report {
    let store = Careless::new(how);
    let suite = Suite::new(move || std::future::ready(Ok(store.clone())));
    suite.only(&[rule]).run().await
}

/// Catches all of these concurrently, because some rules wait for a while before they find a
/// violation.
async fn assert_all_caught(each: &[(Carelessness, &'static str)]) {
    let each = each.iter().map(|&(how, rule)| {
        tokio::spawn(async move {
            let report = check_kinds(how, rule).await;
            assert_eq!(report.checked(), 1, "there is no rule `{rule}`");
            assert_eq!(report.broken().count(), 1, "`{rule}` does not catch {how:?}");
            check_kinds(Carelessness::None, rule).await.assert_passed();
        })
    });
    for caught in join_all(each).await {
        caught.expect("caught");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_visible_to_the_engine_are_caught() {
    assert_all_caught(&[
        (Carelessness::LateAcquireGrants, "an_acquire_executed_after_its_release_grants_nothing"),
        (Carelessness::LateAcquireGrants, "a_late_set_grants_nothing"),
        (Carelessness::EndlessValidity, "no_body_runs_on_a_grant_answered_after_its_validity"),
        (Carelessness::EndlessValidity, "a_late_renewal_revives_no_ended_proof"),
        (Carelessness::RenewsOnce, "one_lost_renewal_loses_no_lease"),
        (Carelessness::BoundToItsRuntime, "a_guard_is_given_back_in_another_runtime"),
        (Carelessness::BoundToItsRuntime, "a_guard_is_given_back_after_its_runtime"),
        (Carelessness::PlacesStay, "nothing_is_left_behind"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_that_block_other_callers_are_caught() {
    assert_all_caught(&[
        (Carelessness::ForcesNothing, "a_lost_hold_keeps_no_neighbour_out"),
        (Carelessness::SetsInParts, "a_waiting_set_keeps_no_neighbour_out"),
        (Carelessness::BlocksItsThread, "a_loop_of_calls_starves_nobody"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_in_kinds_of_locks_are_caught() {
    assert_all_caught(&[
        (Carelessness::ReadersAreWriters, "readers_share_and_exclude_a_writer"),
        (Carelessness::ReadersAreWriters, "readers_of_one_process_share"),
        (Carelessness::ReadersAreNobody, "readers_share_and_exclude_a_writer"),
        (Carelessness::WritersArePassed, "a_waiting_writer_is_not_passed_by_later_readers"),
        (Carelessness::OneMore, "so_many_hold_and_no_more"),
        (Carelessness::OneMore, "never_more_than_the_permits_are_inside"),
        (Carelessness::NoOrder, "nobody_overtakes_a_fair_waiter"),
        (Carelessness::PlacesStay, "a_place_that_is_given_up_is_gone_at_once"),
        (Carelessness::ForcesOne, "a_forced_release_ends_every_reader"),
        (Carelessness::SetsInParts, "a_set_is_taken_in_one_step_or_not_at_all"),
    ])
    .await;
}

#[tokio::test]
async fn a_call_that_a_tap_fails_does_not_reach_the_backend() {
    let store = Memory::new();
    let tap = Tap::new(store.clone());
    let claim = Claim::new("k".into(), Duration::from_secs(5));
    tap.fail(Call::Acquire);
    assert!(tap.try_acquire(&claim).await.is_err_and(|error| error.is_transient()));
    assert!(tap.try_acquire_set(std::slice::from_ref(&claim)).await.is_err());
    assert!(tap.acquire_queued(&claim).await.is_err());
    let holder = store.inspect(&claim.key).await.expect("memory answers");
    assert!(holder.is_none(), "a failed acquire was granted: {holder:?}");
    tap.heal();
    let granted = tap.try_acquire(&claim).await.expect("healed");
    assert!(matches!(granted, Attempt::Granted { .. }), "{granted:?}");
    tap.fail(Call::Release);
    assert!(tap.release(&claim, Release::default()).await.is_err());
    let holder = store.inspect(&claim.key).await.expect("memory answers");
    assert!(holder.is_some(), "a failed release was executed");
    assert_eq!((tap.count(Call::Acquire), tap.count(Call::Release)), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_tap_loses_never_arrives_but_the_next_one_does() {
    let tap = Tap::new(Memory::new());
    let claim = Claim::new("k".into(), Duration::from_secs(5));
    tap.lose(Call::Acquire, 1);
    let lost = tokio::time::timeout(Duration::from_hours(1), tap.try_acquire(&claim)).await;
    assert!(lost.is_err(), "a lost answer came: {lost:?}");
    let granted = tap.try_acquire(&claim).await.expect("memory answers");
    assert!(matches!(granted, Attempt::Granted { .. }), "{granted:?}");
}
