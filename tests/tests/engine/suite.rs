//! Tests of the conformance suite itself: it passes a correct store, and catches each defect with the
//! matching rule.

use std::time::Duration;

use dlock_runtime::backend::{Attempt, Backend, Claim, Memory, Release};
use dlock_runtime::testing::{Call, Intercepted, Report, Suite};
use dlock_tests::defective::{Defective, Flaw};
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
async fn a_correct_store_passes() {
    let report = check(Defect::None, None).await;
    report.assert_passed();
    assert!(report.checked() >= 77, "only {} rules", report.checked());
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
    assert_caught(Defect::TokenBeforeWait, "a_token_is_issued_after_the_wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_not_recorded_is_caught() {
    assert_caught(Defect::BlockNotRecorded, "the_tokens_of_a_block_are_reserved").await;
    assert_caught(Defect::BlockNotRecorded, "many_tasks_of_several_processes_all_acquire").await;
}

#[tokio::test]
async fn an_acquire_that_is_not_atomic_is_caught() {
    assert_caught(Defect::AcquireNotAtomic, "one_of_many_simultaneous_acquires_succeeds").await;
}

#[tokio::test(start_paused = true)]
async fn a_missed_wake_up_is_caught() {
    assert_caught(Defect::MissedWakeUp, "a_watch_reports_a_release").await;
}

#[tokio::test]
async fn a_renewal_that_revives_is_caught() {
    assert_caught(Defect::RenewalRevives, "a_renewal_after_release_does_not_revive_the_lease")
        .await;
}

#[tokio::test]
async fn a_lease_leaked_on_cancel_is_caught() {
    assert_caught(Defect::LeakOnCancel, "a_run_dropped_at_any_step_frees_its_key").await;
}

#[tokio::test]
async fn a_revocation_that_does_not_end_or_ends_too_soon_is_caught() {
    let rule = "a_revoked_hold_is_not_renewed_but_keeps_its_key";
    assert_caught(Defect::RevokedIsRenewed, rule).await;
    assert_caught(Defect::RevocationFrees, rule).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_acquire_that_is_granted_late_is_caught() {
    let rule = "an_acquire_executed_after_its_release_grants_nothing";
    assert_caught(Defect::LateAcquireGrants, rule).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_that_show_only_under_contention_are_caught() {
    assert_caught(Defect::AcquireNotAtomic, "many_tasks_of_several_processes_all_acquire").await;
    assert_caught(Defect::ConstantToken, "many_tasks_of_one_process_all_acquire").await;
}

async fn check_flaw(flaw: Flaw, rule: &str) -> Report {
    let store = Defective::new(flaw);
    let suite = Suite::new(move || std::future::ready(Ok(store.clone())));
    suite.only(&[rule]).run().await
}

/// Checks all of them concurrently, because some rules wait a while before they find a defect.
async fn assert_all_caught(each: &[(Flaw, &'static str)]) {
    let each = each.iter().map(|&(flaw, rule)| {
        tokio::spawn(async move {
            let report = check_flaw(flaw, rule).await;
            assert_eq!(report.checked(), 1, "there is no rule `{rule}`");
            assert_eq!(report.broken().count(), 1, "`{rule}` does not catch {flaw:?}");
            check_flaw(Flaw::None, rule).await.assert_passed();
        })
    });
    for caught in join_all(each).await {
        caught.expect("caught");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flaws_that_concern_the_engine_are_caught() {
    assert_all_caught(&[
        (Flaw::LateAcquireGrants, "an_acquire_executed_after_its_release_grants_nothing"),
        (Flaw::LateAcquireGrants, "a_late_set_grants_nothing"),
        (Flaw::ValidityTooLong, "no_body_runs_on_a_grant_received_after_its_validity"),
        (Flaw::ValidityTooLong, "a_late_renewal_does_not_revive_an_expired_hold"),
        (Flaw::RenewsOnce, "one_lost_renewal_does_not_lose_the_lease"),
        (Flaw::BoundToItsRuntime, "a_guard_is_released_in_another_runtime"),
        (Flaw::BoundToItsRuntime, "a_guard_is_released_after_its_runtime_ended"),
        (Flaw::AbandonedPositionsStay, "nothing_is_left_behind"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flaws_that_concern_other_tasks_are_caught() {
    assert_all_caught(&[
        (Flaw::ForceReleaseDoesNothing, "a_lost_hold_does_not_block_its_own_process"),
        (Flaw::NeighboursShareAnswers, "each_claim_of_a_request_has_its_own_answer"),
        (Flaw::PartialSets, "a_waiting_set_does_not_block_its_own_process"),
        (Flaw::BlocksTheThread, "a_loop_of_calls_does_not_starve_other_tasks"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flaws_of_shared_fair_and_counted_locks_are_caught() {
    assert_all_caught(&[
        (Flaw::ReadersAreExclusive, "readers_share_and_exclude_a_writer"),
        (Flaw::ReadersAreExclusive, "readers_of_one_process_share"),
        (Flaw::ReadersDoNotBlockWriters, "readers_share_and_exclude_a_writer"),
        (Flaw::ReadersOvertakeWriters, "later_readers_do_not_overtake_a_waiting_writer"),
        (Flaw::OnePermitTooMany, "no_more_holders_than_permits_are_granted"),
        (Flaw::OnePermitTooMany, "no_more_bodies_than_permits_run"),
        (Flaw::Unordered, "nobody_overtakes_a_fair_waiter"),
        (Flaw::AbandonedPositionsStay, "an_abandoned_queue_position_is_freed_at_once"),
        (Flaw::ForceReleaseEndsOne, "a_forced_release_ends_every_reader"),
        (Flaw::PartialSets, "a_set_is_acquired_atomically"),
    ])
    .await;
}

#[tokio::test]
async fn a_call_that_fails_on_purpose_does_not_reach_the_backend() {
    let store = Memory::new();
    let intercepted = Intercepted::new(store.clone());
    let claim = Claim::new("k".into(), Duration::from_secs(5));
    intercepted.fail(Call::Acquire);
    assert!(intercepted.try_acquire(&claim).await.is_err_and(|error| error.is_transient()));
    assert!(intercepted.try_acquire_set(std::slice::from_ref(&claim)).await.is_err());
    assert!(intercepted.acquire_queued(&claim).await.is_err());
    let holder = store.inspect(&claim.key).await.expect("memory answers");
    assert!(holder.is_none(), "a failed acquire was granted: {holder:?}");
    intercepted.heal();
    let granted = intercepted.try_acquire(&claim).await.expect("healed");
    assert!(matches!(granted, Attempt::Granted { .. }), "{granted:?}");
    intercepted.fail(Call::Release);
    assert!(intercepted.release(&claim, Release::default()).await.is_err());
    let holder = store.inspect(&claim.key).await.expect("memory answers");
    assert!(holder.is_some(), "a failed release was executed");
    assert_eq!((intercepted.count(Call::Acquire), intercepted.count(Call::Release)), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_never_arrives_and_the_next_one_does() {
    let intercepted = Intercepted::new(Memory::new());
    let claim = Claim::new("k".into(), Duration::from_secs(5));
    intercepted.lose(Call::Acquire, 1);
    let lost = tokio::time::timeout(Duration::from_hours(1), intercepted.try_acquire(&claim)).await;
    assert!(lost.is_err(), "a lost answer arrived: {lost:?}");
    let granted = intercepted.try_acquire(&claim).await.expect("memory answers");
    assert!(matches!(granted, Attempt::Granted { .. }), "{granted:?}");
}
