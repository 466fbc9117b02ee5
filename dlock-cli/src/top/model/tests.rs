//! What the model tells of a history is what happened.

use std::time::Duration;

use dlock_runtime::backend::{Holder, LockState};
use dlock_runtime::{FencingToken, Mode};

use super::Model;
use super::blame::NOBODY;
use super::samples::{History, at, client, night, secs, span};

const INVENTORY: &str = "shop::nightly_inventory";
const PURCHASE: &str = "shop::purchase";

fn sampled(history: &History, moments: impl IntoIterator<Item = Duration>) -> Model {
    let mut model = Model::new(true);
    for moment in moments {
        model.sample(at(moment), vec![history.state(moment)]);
    }
    model
}

fn every(interval: f64, until: f64) -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(0.0), move |at| Some(at + interval))
        .take_while(move |at| *at <= until)
        .map(secs)
}

fn waited_for(model: &Model, site: &str) -> Duration {
    model.blame().site(site).map(|site| site.waited).unwrap_or_default()
}

fn assert_near(one: Duration, other: Duration, off: f64, what: &str) {
    let (one, other) = (one.as_secs_f64(), other.as_secs_f64());
    assert!((one - other).abs() <= off * other, "{what}: {one} s, and in truth {other} s");
}

#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A small number.
fn the_site_that_holds_most_of_the_time_is_named() {
    // Waits of several samples, of one sample, and much shorter than the time between samples.
    for (cycle, depth) in [(7.3, 3.0), (1.7, 2.0), (0.21, 2.0), (0.013, 1.5)] {
        let until = 1_500.0;
        let history = night("product:1", cycle, (until / cycle) as u32, depth, 1);
        let model = sampled(&history, every(0.97, until));
        let truth = |site| history.waited_for(site, secs(until));
        let name = format!("cycles of {cycle} s");
        let (inventory, purchase) = (waited_for(&model, INVENTORY), waited_for(&model, PURCHASE));
        assert_near(inventory + purchase, truth(INVENTORY) + truth(PURCHASE), 0.05, &name);
        // Short holds between two samples are charged to those before them.
        assert_near(inventory, truth(INVENTORY), 0.1, &name);
        assert!(inventory > purchase * 7, "{name}: {inventory:?}, {purchase:?}");
        assert_eq!(model.blame().total(), model.waited(), "{name}");
    }
}

#[test]
fn time_is_split_where_the_new_hold_began() {
    let history = History {
        key: "k",
        holds: vec![span("a", 1, 0.0, 10.3), span("b", 2, 10.3, 60.0)],
        waits: vec![span("c", 3, 5.0, 60.0)],
    };
    let model = sampled(&history, [10.0, 11.0].map(secs));
    assert_eq!(waited_for(&model, "a"), secs(0.3));
    assert_eq!(waited_for(&model, "b"), secs(0.7));
    let site = model.blame().site("b").expect("charged");
    assert_eq!(site.waits, 1);
    assert_eq!(site.by_waiter(), [("c", secs(0.7))]);
    assert_eq!(site.worst_key().map(|(key, _)| key.as_str().to_owned()), Some("k".to_owned()));
    assert_eq!(site.worst_hold.as_ref().map(|hold| hold.token), Some(2));
}

#[test]
fn time_is_split_in_the_middle_if_the_store_does_not_know_when_holds_began() {
    let history = History {
        key: "k",
        holds: vec![span("a", 1, 0.0, 10.3), span("b", 2, 10.3, 60.0)],
        waits: vec![span("c", 3, 5.0, 60.0)],
    };
    let mut model = Model::new(false);
    for moment in [10.0, 11.0].map(secs) {
        model.sample(at(moment), vec![history.state(moment)]);
    }
    assert_eq!(waited_for(&model, "a"), secs(0.5));
    assert_eq!(waited_for(&model, "b"), secs(0.5));
}

#[test]
fn several_holders_share_the_charge_to_the_nanosecond() {
    let history = History {
        key: "k",
        holds: vec![span("a", 1, 0.0, 9.0), span("b", 2, 0.0, 9.0), span("c", 3, 0.0, 9.0)],
        waits: vec![span("w", 4, 0.0, 9.0)],
    };
    let model = sampled(&history, [Duration::ZERO, Duration::from_secs(1)]);
    assert_eq!(model.waited(), secs(1.0));
    assert_eq!(model.blame().total(), secs(1.0));
    assert_eq!(waited_for(&model, "b"), Duration::from_nanos(333_333_333));
}

#[test]
fn nobody_is_charged_for_its_own_wait() {
    // It waited until 0.2 and has held the key since then.
    let history = History {
        key: "k",
        holds: vec![span("a", 1, 0.0, 1.2), span("b", 2, 1.2, 9.0)],
        waits: vec![span("b", 2, 0.0, 1.2)],
    };
    let model = sampled(&history, [1.0, 2.0].map(secs));
    assert_eq!(waited_for(&model, "b"), Duration::ZERO);
    assert_eq!(waited_for(&model, "a"), secs(0.5));
}

#[test]
fn waits_while_nobody_holds_the_key_are_told_apart() {
    let history = History { key: "k", holds: vec![], waits: vec![span("w", 1, 0.0, 9.0)] };
    let model = sampled(&history, every(1.0, 4.0));
    assert_eq!(waited_for(&model, NOBODY), secs(4.0));
}

#[test]
fn a_renewal_is_no_grant() {
    let history = History { key: "k", holds: vec![span("a", 1, 0.0, 99.0)], waits: vec![] };
    let model = sampled(&history, every(1.0, 8.0));
    let lock = model.lock("k").expect("held");
    assert!(lock.grants_per_second(at(secs(8.0))) < 0.001);
    let busy = night("k", 0.5, 100, 1.0, 1);
    let model = sampled(&busy, every(0.93, 30.0));
    let seen = model.lock("k").expect("held").grants_per_second(model.now().expect("sampled"));
    assert!((0.5..=2.0).contains(&seen), "at least every second sample shows another: {seen}");
}

#[test]
fn a_lease_that_passes_within_its_process_is_one_hold() {
    let holder = |token| {
        Holder::new(
            dlock_runtime::OwnerId::parse(&"7".repeat(32)),
            FencingToken::new(token),
            secs(5.0),
        )
        .with_mode(Mode::Exclusive)
        .with_client_info(Some(client("a", 1, secs(0.5))))
    };
    let mut model = Model::new(true);
    for (second, token) in [(1.0, 8), (2.0, 16), (3.0, 24)] {
        let state = LockState::new("k".into(), vec![holder(token)], vec![]);
        model.sample(at(secs(second)), vec![state]);
    }
    assert!(model.lock("k").expect("held").grants_per_second(at(secs(3.0))) < 0.001);
}

#[test]
fn what_was_not_watched_is_not_charged() {
    let history = History {
        key: "k",
        holds: vec![span("a", 1, 0.0, 99.0)],
        waits: vec![span("w", 2, 0.0, 99.0)],
    };
    let mut model = sampled(&history, every(1.0, 3.0));
    model.interrupt();
    model.sample(at(secs(33.0)), vec![history.state(secs(33.0))]);
    model.sample(at(secs(34.0)), vec![history.state(secs(34.0))]);
    assert_eq!(model.waited(), secs(4.0));
    assert_eq!(model.blame().site("a").map(|site| site.waits), Some(1), "one wait, seen again");
    model.clear();
    assert_eq!(model.waited(), Duration::ZERO);
    assert_eq!(model.blame().sites().count(), 0);
    assert!(model.lock("k").is_some());
}

#[test]
fn a_clock_that_is_wrong_does_no_harm() {
    let mut model = Model::new(true);
    for (second, token, since) in [(1.0, 1, 900.0), (2.0, 2, 900.0), (3.0, 3, 0.0)] {
        let holder = Holder::new(None, FencingToken::new(token), secs(5.0))
            .with_client_info(Some(client("a", token, secs(since))));
        let history = History { key: "k", holds: vec![], waits: vec![span("w", 9, 0.0, 99.0)] };
        let waiters = history.state(secs(second)).waiters;
        model.sample(at(secs(second)), vec![LockState::new("k".into(), vec![holder], waiters)]);
    }
    assert_eq!(waited_for(&model, "a"), secs(2.0));
}

#[test]
fn memory_stays_bounded_and_sums_exact() {
    let mut model = Model::new(true);
    for second in 0..60_u64 {
        let moment = Duration::from_secs(second);
        let locks = (0..100).map(|number| {
            let id = second / 2 * 100 + number;
            let holder = Holder::new(None, FencingToken::new(id), secs(5.0))
                .with_client_info(Some(client(&format!("site-{id}"), 1, moment)));
            let wait = History { key: "", holds: vec![], waits: vec![span("w", id, 0.0, 99.0)] };
            let key = format!("k{id}").as_str().into();
            LockState::new(key, vec![holder], wait.state(moment).waiters)
        });
        model.sample(at(moment), locks.collect());
    }
    assert!(model.blame().sites().count() <= 1_001);
    assert!(model.locks().count() <= 1_200);
    assert_eq!(model.blame().total(), model.waited());
}
