//! The view of the locks.

use std::time::Duration;

use dlock_runtime::ClientInfo;
use dlock_runtime::backend::Holder;

use super::model::{Model, Moment, Watched, site_of};
use super::table::{Column, Row, Table, Tone, Weight};
use super::text::{plain, short};
use crate::show::mode;

const fn text(name: &'static str, rank: u8, least: Option<usize>) -> Column {
    Column { name, is_number: false, rank, least }
}

const fn number(name: &'static str, rank: u8) -> Column {
    Column { name, is_number: true, rank, least: None }
}

const COLUMNS: [Column; 10] = [
    text("KEY", 0, Some(8)),
    number("WAITERS", 1),
    number("LONGEST", 3),
    text("HELD BY", 2, Some(10)),
    number("AGE", 4),
    number("ENDS IN", 6),
    number("GRANTS/S", 5),
    number("TOKEN", 7),
    text("MODE", 8, None),
    text("CLIENT", 9, Some(8)),
];

/// The column `WAITERS`.
pub const SORTED: usize = 1;

pub fn table(model: &Model) -> Table {
    let Some(now) = model.now() else { return Table { columns: &COLUMNS, rows: Vec::new() } };
    let rows = model.locks().map(|lock| row(lock, now, model.knows_grants())).collect();
    Table { columns: &COLUMNS, rows }
}

fn row(lock: &Watched, now: Moment, knows_grants: bool) -> Row {
    let key = lock.state.key.as_str();
    let longest = longest_wait(lock, now);
    let grants = lock.grants_per_second(now);
    let waiters = lock.state.waiters.len();
    let mut cells = vec![
        (plain(key), Weight::Text(key.to_owned())),
        (waiters.to_string(), Weight::Number(waiters as u128)),
        (longest.map_or_else(none, short), time(longest)),
    ];
    let grants =
        (format!("{grants:.1}"), Weight::Number(Duration::from_secs_f64(grants).as_nanos()));
    cells.extend(held(lock, now, knows_grants, grants));
    let tone = match () {
        () if lock.is_free() => Tone::Dim,
        () if waiters > 0 => Tone::Busy,
        () => Tone::Plain,
    };
    Row { id: key.to_owned(), searched: searched(lock), cells, tone }
}

/// The cells that tell of the holders.
fn held(
    lock: &Watched,
    now: Moment,
    knows_grants: bool,
    grants: (String, Weight),
) -> Vec<(String, Weight)> {
    let holders = &lock.state.holders;
    let Some(first) = holders.first() else {
        let dash = || (none(), Weight::Number(0));
        let word = if lock.is_free() { "(free)" } else { "-" };
        let site = (word.to_owned(), Weight::Text(String::new()));
        let text = || (none(), Weight::Text(String::new()));
        return vec![site, dash(), dash(), grants, dash(), text(), text()];
    };
    let age = holders.iter().filter_map(|holder| age(holder.client_info.as_ref(), now)).max();
    // Such a store only knows when the holder began to wait for the lock.
    let mark = if knows_grants { "" } else { "<" };
    let ends = holders.iter().map(|holder| holder.expires_in).max().unwrap_or_default();
    let token = holders.iter().map(|holder| holder.token.get()).max().unwrap_or_default();
    let site = named(first, holders.len());
    let (mode, client) = (mode(first.mode), client(first.client_info.as_ref()));
    vec![
        (site.clone(), Weight::Text(site)),
        (age.map_or_else(none, |age| format!("{mark}{}", short(age))), time(age)),
        (short(ends), time(Some(ends))),
        grants,
        (token.to_string(), Weight::Number(token.into())),
        (mode.clone(), Weight::Text(mode)),
        (client.clone(), Weight::Text(client)),
    ]
}

/// The site of a holder, and how many others there are.
fn named(holder: &Holder, count: usize) -> String {
    let others = if count > 1 { format!(" +{}", count - 1) } else { String::new() };
    format!("{}{}{others}", state_of(holder), plain(site_of(holder.client_info.as_ref())))
}

/// What is unusual about a hold.
pub fn state_of(holder: &Holder) -> &'static str {
    match holder.owner {
        None => "(resting) ",
        Some(_) if holder.revoked => "(revoked) ",
        Some(_) => "",
    }
}

/// Its host and process.
pub fn client(client: Option<&ClientInfo>) -> String {
    client.map_or_else(none, |client| plain(&format!("{}/{}", client.host(), client.process_id())))
}

/// Since when it has held or waited.
pub fn age(client: Option<&ClientInfo>, now: Moment) -> Option<Duration> {
    client.map(|client| now.since(client.since()))
}

pub fn longest_wait(lock: &Watched, now: Moment) -> Option<Duration> {
    lock.state.waiters.iter().filter_map(|waiter| age(waiter.client_info.as_ref(), now)).max()
}

fn time(time: Option<Duration>) -> Weight {
    Weight::Number(time.map_or(0, |time| time.as_nanos()))
}

fn none() -> String {
    "-".to_owned()
}

fn searched(lock: &Watched) -> String {
    let holders = lock.state.holders.iter().filter_map(|holder| holder.client_info.as_ref());
    let waiters = lock.state.waiters.iter().filter_map(|waiter| waiter.client_info.as_ref());
    let clients = holders.chain(waiters).map(ToString::to_string);
    let words: Vec<_> = std::iter::once(lock.state.key.to_string()).chain(clients).collect();
    words.join("\n").to_lowercase()
}
