//! `dlock top --once`: for scripts.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::{Value, json};

use super::blame::share;
use super::model::{Model, Site, Watched};
use super::shows::Shows;
use super::table::Table;
use super::{blame, locks};
use crate::show::{millis, of_lock};

/// Both views, each sorted as the screen begins with.
pub fn text(model: &Model, shows: Shows) -> String {
    let mut text = String::new();
    // Writing into a `String` does not fail.
    let _ = write!(text, "{}", lines(locks::table(model), locks::SORTED));
    if model.blame().sites().next().is_some() {
        let _ = write!(text, "\n{}", lines(blame::table(model), blame::SORTED));
    }
    let _ = writeln!(text, "\n{}", shows.caveat(model.has_seen_waiters()));
    text
}

fn lines(mut table: Table, sorted: usize) -> String {
    table.sort(sorted, false);
    let widths = table.widths(usize::MAX);
    let head = std::iter::once(table.head(&widths, None));
    let lines = head.chain(table.rows.iter().map(|row| table.row(row, &widths)));
    let lines: Vec<_> = lines.map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

pub fn json(model: &Model, shows: Shows) -> Value {
    let blame = model.blame();
    let total = blame.total();
    let mut sites: Vec<_> = blame.sites().collect();
    sites.sort_by(|one, other| other.1.waited.cmp(&one.1.waited).then(one.0.cmp(other.0)));
    json!({
        "locks": model.locks().map(|lock| of_watched(lock, model)).collect::<Vec<_>>(),
        "blame": sites.iter().map(|(name, site)| of_site(name, site, share(site.waited, total))).collect::<Vec<_>>(),
        "waited_ms": millis(model.waited()),
        "caveat": shows.caveat(model.has_seen_waiters()),
    })
}

fn of_watched(lock: &Watched, model: &Model) -> Value {
    let mut value = of_lock(&lock.state);
    if let Some(now) = model.now() {
        value["longest_wait_ms"] = locks::longest_wait(lock, now).map(millis).into();
        value["grants_per_second"] = lock.grants_per_second(now).into();
    }
    value
}

fn of_site(name: &str, site: &Site, share: f64) -> Value {
    let waiters: serde_json::Map<_, _> = site
        .by_waiter()
        .into_iter()
        .map(|(name, waited)| (name.to_owned(), millis(waited).into()))
        .collect();
    let hold = site.worst_hold.as_ref().map(|hold| {
        json!({ "key": hold.key.as_str(), "token": hold.token, "waited_ms": millis(hold.waited) })
    });
    json!({
        "site": name,
        "waited_ms": millis(site.waited),
        "share": share,
        "waits": site.waits,
        "worst_key": site.worst_key().map(|(key, _)| key.as_str()),
        "worst_hold": hold,
        "waiters": waiters,
    })
}

/// A reader that has gone away needs no more lines.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
