//! What a page contains.

use std::time::Duration;

use dlock_runtime::backend::{Holder, LockState, Waiter};
use dlock_runtime::{FencingToken, LockKey, Mode, OwnerId};

use super::{Subject, render};
use crate::top::model::samples::{at, client, secs};
use crate::top::model::{Model, Moment};
use crate::top::shows::Shows;
use crate::watch::record::{MOST_BARS, Recording};

const EVIL: &str = "<script>alert('x')</script>\" onload=\"x\n";

fn subject() -> Subject {
    Subject {
        store: "redis://cache".to_owned(),
        prefix: EVIL.to_owned(),
        interval: Duration::from_millis(200),
        shows: Shows::Processes,
    }
}

fn holder(number: u64, site: &str, process: u64) -> Holder {
    let owner = OwnerId::from_bytes(u128::from(number).to_be_bytes());
    Holder::new(Some(owner), FencingToken::new(number), secs(30.0)).with_client_info(Some(client(
        site,
        process,
        Duration::ZERO,
    )))
}

/// Takes the same samples with both.
fn page(samples: impl IntoIterator<Item = (Moment, Vec<LockState>)>) -> String {
    let (mut recording, mut model) = (Recording::new(true), Model::new(true));
    for (at, locks) in samples {
        recording.sample(at, &locks);
        model.sample(at, locks);
    }
    render(&subject(), &recording, &model, true)
}

#[test]
fn an_empty_recording_is_a_page() {
    assert!(page([]).contains("Nothing has been recorded yet"));
    assert!(page([(at(secs(1.0)), vec![])]).contains("No lock was held or waited for"));
}

#[test]
fn keys_and_labels_are_only_text() {
    let site = "<img src=x onerror=alert(1)>";
    let waiter = Waiter::new(None, Mode::Exclusive, Some(client(site, 2, Duration::ZERO)));
    let lock = LockState::new(LockKey::from(EVIL), vec![holder(7, site, 1)], vec![waiter]);
    let page = page([1.0, 2.0, 3.0].map(|second| (at(secs(second)), vec![lock.clone()])));
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(!page.contains("<img") && !page.contains("\" onload"), "{page}");
    // In the row's name, the filter's text, the tooltip, the table, and the heading.
    assert!(page.matches("&lt;script&gt;alert(&#39;x&#39;)").count() >= 5);
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt; holds &lt;script&gt;"));
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let lock = LockState::new(LockKey::from("k"), vec![holder(7, "a", 1)], vec![]);
    let page = page([(at(secs(1.0)), vec![lock])]);
    let names = page.matches("http://").count();
    assert_eq!(names, page.matches("http://www.w3.org/2000/svg").count(), "a name, no address");
    for part in ["https://", "src=", "<link", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_page_has_a_bounded_size() {
    let long = "\u{1}".repeat(400);
    let lock = |second: u32, number: u64| {
        let key = LockKey::from(&*format!("{long}{number}"));
        let site = format!("site {}", number % 900);
        LockState::new(
            key,
            vec![holder(u64::from(second) * 10_000 + number, &site, number % 700)],
            vec![],
        )
    };
    let samples = (0..4).map(|second| {
        (at(secs(f64::from(second))), (0..9_000).map(|number| lock(second, number)).collect())
    });
    let page = page(samples);
    assert!(page.len() < 8_000_000, "{} bytes", page.len());
    assert!(page.matches("<rect class=\"hold").count() <= MOST_BARS);
    assert!(page.matches("<div class=\"row\"").count() <= super::lanes::MOST_ROWS);
    assert!(page.contains("<b>Left out:</b>") && page.contains("rows with the shortest bars"));
}

#[test]
fn a_process_with_many_keys_has_a_row_for_each_site() {
    let lock = |number: u64, process: u64| {
        let key = LockKey::from(&*format!("product:{number}"));
        LockState::new(key, vec![holder(number, "shop::purchase", process)], vec![])
    };
    let few = page([(at(secs(1.0)), (0..24).map(|number| lock(number, 1)).collect())]);
    assert_eq!(few.matches("<div class=\"row\"").count(), 24);
    let many = page([(at(secs(1.0)), (0..25).map(|number| lock(number, 1)).collect())]);
    assert_eq!(many.matches("<div class=\"row\"").count(), 1);
    assert!(many.contains("shop::purchase, all keys"));
}
