//! The view of the blame: who is waited for.

use std::time::Duration;

use super::model::{Model, Site};
use super::table::{Column, Row, Table, Tone, Weight};
use super::text::{plain, short};

const fn text(name: &'static str, rank: u8, least: usize) -> Column {
    Column { name, is_number: false, rank, least: Some(least) }
}

const fn number(name: &'static str, rank: u8) -> Column {
    Column { name, is_number: true, rank, least: None }
}

const COLUMNS: [Column; 7] = [
    text("WAITED FOR", 0, 10),
    number("WAITED", 1),
    number("SHARE", 2),
    number("WAITS", 3),
    text("WHO WAITED", 4, 12),
    text("WORST KEY", 5, 8),
    text("WORST HOLD", 6, 10),
];

/// The column `WAITED`.
pub const SORTED: usize = 1;

/// From this share on, a site is what waits are about.
const GUILTY: f64 = 0.5;

pub fn table(model: &Model) -> Table {
    let total = model.blame().total();
    let rows = model.blame().sites().map(|(name, site)| row(name, site, total)).collect();
    Table { columns: &COLUMNS, rows }
}

fn row(name: &str, site: &Site, total: Duration) -> Row {
    let waited = Weight::Number(site.waited.as_nanos());
    let share = share(site.waited, total);
    let who = who_waited(site);
    let key = site.worst_key().map_or_else(String::new, |(key, _)| plain(key.as_str()));
    let hold = site.worst_hold.as_ref();
    let hold = hold
        .map_or_else(String::new, |hold| format!("token {}, {}", hold.token, short(hold.waited)));
    let searched = format!("{name}\n{key}\n{who}").to_lowercase();
    let cells = vec![
        (plain(name), Weight::Text(name.to_owned())),
        (short(site.waited), waited.clone()),
        (percent(share), waited),
        (site.waits.to_string(), Weight::Number(site.waits.into())),
        (who.clone(), Weight::Text(who)),
        (key.clone(), Weight::Text(key)),
        (hold.clone(), Weight::Text(hold)),
    ];
    let tone = if share >= GUILTY { Tone::Alarm } else { Tone::Plain };
    Row { id: name.to_owned(), cells, tone, searched }
}

/// Part of a whole.
pub fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// The site that waited longest, and how many others there are.
fn who_waited(site: &Site) -> String {
    let waiters = site.by_waiter();
    let Some((name, _)) = waiters.first() else { return String::new() };
    let others = waiters.len() - 1;
    if others == 0 { plain(name) } else { format!("{} +{others}", plain(name)) }
}
