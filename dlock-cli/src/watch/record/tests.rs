//! What the timeline shows is what happened.

use std::time::Duration;

use dlock_runtime::backend::{Holder, LockState};
use dlock_runtime::{FencingToken, LockKey, OwnerId};

use super::{Bar, End, Kind, Recording};
use crate::top::model::samples::{History, at, client, secs, span};

fn recorded(history: &History, moments: impl IntoIterator<Item = f64>) -> Recording {
    let mut recording = Recording::new(true);
    for moment in moments.into_iter().map(secs) {
        let state = history.state(moment);
        let locks = if state.is_idle() { vec![] } else { vec![state] };
        recording.sample(at(moment), &locks);
    }
    recording
}

fn every(interval: f64, until: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(0.0), move |at| Some(at + interval))
        .take_while(move |at| *at < until)
}

/// In the order of their beginnings: kind, token, beginning and end.
fn shown(recording: &Recording) -> Vec<(Kind, Option<u64>, f64, f64, End)> {
    let mut bars: Vec<_> = recording.bars().collect();
    bars.sort_by_key(|bar| (bar.from, bar.kind));
    let shown = |bar: &Bar| {
        let (from, to) = (bar.from.as_secs_f64(), bar.to.as_secs_f64());
        (bar.kind, bar.tokens.map(|(_, token)| token), from, to, bar.end)
    };
    bars.into_iter().map(shown).collect()
}

fn a_hold_and_its_waiter() -> History {
    History {
        key: "k",
        holds: vec![span("a", 1, 0.3, 2.4), span("b", 2, 2.4, 3.2)],
        waits: vec![span("b", 2, 1.1, 2.4)],
    }
}

#[test]
fn samples_become_bars() {
    let recording = recorded(&a_hold_and_its_waiter(), every(0.5, 5.0));
    // The ends that no clock tells are in the middle between two samples.
    let bars = [
        (Kind::Hold, Some(1), 0.3, 2.4, End::Gone),
        (Kind::Wait, None, 1.1, 2.4, End::Granted),
        (Kind::Hold, Some(2), 2.4, 3.25, End::Gone),
    ];
    assert_eq!(shown(&recording), bars);
    assert!(recording.bars().all(|bar| !bar.began_unseen && bar.count == 1));
}

#[test]
fn what_was_there_before_says_so() {
    let recording = recorded(&a_hold_and_its_waiter(), [1.0, 1.5]);
    let bars =
        [(Kind::Hold, Some(1), 1.0, 1.5, End::Open), (Kind::Wait, None, 1.1, 1.5, End::Open)];
    assert_eq!(shown(&recording), bars);
    let unseen: Vec<_> = recording.bars().map(|bar| (bar.kind, bar.began_unseen)).collect();
    assert_eq!(unseen, [(Kind::Hold, true), (Kind::Wait, false)]);
}

#[test]
fn nothing_is_drawn_while_the_store_does_not_answer() {
    let history = a_hold_and_its_waiter();
    let mut recording = recorded(&history, [0.5, 1.0]);
    recording.interrupt();
    recording.interrupt();
    recording.sample(at(secs(2.0)), &[history.state(secs(2.0))]);
    assert_eq!(recording.gaps(), [(secs(1.0), secs(2.0))]);
    let bars = [
        (Kind::Hold, Some(1), 0.5, 1.0, End::Unwatched),
        (Kind::Hold, Some(1), 2.0, 2.0, End::Open),
        (Kind::Wait, None, 2.0, 2.0, End::Open),
    ];
    assert_eq!(shown(&recording), bars);
}

/// Samples, a second apart, of a holder with so much of its lease left; then it is gone.
fn end_of(left: &[f64], change: impl Fn(Holder) -> Holder) -> End {
    let mut recording = Recording::new(true);
    for (second, left) in left.iter().enumerate() {
        let now = Duration::from_secs(second as u64);
        let owner = Some(OwnerId::from_bytes([1; 16]));
        let holder = Holder::new(owner, FencingToken::new(7), secs(*left));
        let holder = change(holder.with_client_info(Some(client("a", 1, Duration::ZERO))));
        let state = LockState::new(LockKey::from("k"), vec![holder], vec![]);
        recording.sample(at(now), &[state]);
    }
    recording.sample(at(Duration::from_secs(left.len() as u64)), &[]);
    let ends: Vec<_> = recording.bars().map(|bar| bar.end).collect();
    assert_eq!(ends.len(), 1);
    ends[0]
}

#[test]
fn a_holder_that_vanished_is_marked() {
    let plain = |holder| holder;
    assert_eq!(end_of(&[4.0, 3.0, 2.0, 1.0], plain), End::RanOut);
    assert_eq!(end_of(&[4.0, 3.5, 4.0, 3.5], plain), End::Gone, "it was renewed");
    assert_eq!(end_of(&[4.0, 3.0, 2.0], plain), End::Gone, "released before its lease ended");
    assert_eq!(end_of(&[0.5], plain), End::Gone, "samples are too far apart to say");
    assert_eq!(end_of(&[4.0, 3.5], |holder| holder.with_revoked(true)), End::Revoked);
}

#[test]
fn the_rest_of_a_min_hold_is_no_hold() {
    let mut recording = Recording::new(true);
    for (second, owner) in [(0, Some(OwnerId::from_bytes([1; 16]))), (1, None), (2, None)] {
        let holder = Holder::new(owner, FencingToken::new(7), secs(30.0));
        let state = LockState::new(LockKey::from("k"), vec![holder], vec![]);
        recording.sample(at(Duration::from_secs(second)), &[state]);
    }
    let kinds: Vec<_> = shown(&recording).into_iter().map(|bar| (bar.0, bar.1, bar.4)).collect();
    assert_eq!(kinds, [(Kind::Hold, Some(7), End::Gone), (Kind::Rest, Some(7), End::Open)]);
}

/// A key that is held ten times in a second.
fn busy(key: &'static str, holds: u32) -> History {
    let hold = |number: u32| {
        let from = f64::from(number) * 0.1;
        span("a", u64::from(number) * 7 + 1, from, from + 0.08)
    };
    History { key, holds: (0..holds).map(hold).collect(), waits: vec![] }
}

#[test]
fn a_long_recording_stays_small() {
    let history = busy("k", 20_000);
    let mut recording = Recording::new(true);
    recording.most = 500;
    for moment in every(0.05, 2_000.0).map(secs) {
        let state = history.state(moment);
        recording.sample(at(moment), &[state]);
        assert!(recording.closed.len() <= 500);
    }
    assert!(recording.is_merged());
    assert_eq!(recording.forgotten(), 0);
    let all: u64 = recording.bars().map(|bar| bar.count).sum();
    assert!((19_900..=20_000).contains(&all), "no hold is forgotten: {all}");
    let first = recording.bars().map(|bar| bar.from).min();
    assert_eq!(first, Some(Duration::ZERO), "the beginning is still there");
}

#[test]
fn thousands_of_keys_stay_small() {
    let mut recording = Recording::new(true);
    recording.most = 500;
    for second in 0..3_000_u32 {
        let holder =
            Holder::new(Some(OwnerId::from_bytes([1; 16])), FencingToken::new(1), secs(30.0));
        let key = LockKey::from(&*format!("product:{second}"));
        recording.sample(at(secs(f64::from(second))), &[LockState::new(key, vec![holder], vec![])]);
        assert!(recording.closed.len() <= 500);
    }
    assert_eq!(recording.bars().map(|bar| bar.count).sum::<u64>(), 3_000);
    assert!(recording.bars().any(|bar| bar.key.is_none()), "some are of several keys");
}

#[test]
fn marks_survive_merging() {
    let mut bars = Vec::new();
    for number in 0..2_000_u32 {
        let mut recording = recorded(&busy("k", 3), [0.0, 0.05, 0.09]);
        let mut bar = recording.closed.remove(0);
        bar.from = Duration::from_millis(u64::from(number) * 10);
        bar.to = bar.from + Duration::from_millis(5);
        if number % 200 == 0 {
            bar.end = End::RanOut;
        }
        bars.push(bar);
    }
    let forgotten = super::merge::shrink(&mut bars, 100);
    assert_eq!(forgotten, 0);
    assert!(bars.len() <= 100, "{}", bars.len());
    assert_eq!(bars.iter().filter(|bar| bar.has_mark()).count(), 10);
    assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), 2_000);
}
