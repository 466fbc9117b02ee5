//! All that is known of one lock, or of one site; and the help.

use dlock_runtime::backend::Holder;

use super::app::{App, Page, View};
use crate::show::mode;
use crate::top::blame::{percent, share};
use crate::top::locks::{age, client, state_of};
use crate::top::model::{Moment, Site, Watched, site_of};
use crate::top::text::{plain, short};

/// The keys.
const HELP: &str = "\
Tab or b   the other view: locks, blame
arrows, PgUp, PgDn, Home, End   select a row
Enter      all holders and waiters of a lock, or all that waited for a site
s, S, r    sort by the next column, by the one before; reverse
/          filter by text: a part of a key, a site or a client
p          pause: the picture stays, samples go on
c          begin to count anew
q, Esc, Ctrl-C   quit

WAITED FOR is the site (an annotated function) that held a lock while others
waited. The time that they waited since the last sample is charged to it;
several holders share the charge evenly.
GRANTS/S counts new holders that samples showed: a lower bound.
AGE and LONGEST are measured against the clocks of other hosts.";

/// The lines of the page.
pub fn lines(app: &App) -> Vec<String> {
    match (&app.page, app.view) {
        (Page::None, _) => Vec::new(),
        (Page::Help, _) => HELP.lines().map(str::to_owned).collect(),
        (Page::Detail(key), View::Locks) => match (app.model().lock(key), app.model().now()) {
            (Some(lock), Some(now)) => of_lock(lock, now),
            _ => vec![plain(key), String::new(), "(free)".to_owned()],
        },
        (Page::Detail(name), View::Blame) => match app.model().blame().site(name) {
            Some(site) => of_site(name, site),
            None => vec![plain(name), String::new(), "nobody has waited for it".to_owned()],
        },
    }
}

fn of_lock(lock: &Watched, now: Moment) -> Vec<String> {
    let (holders, waiters) = (&lock.state.holders, &lock.state.waiters);
    let mut lines = vec![plain(lock.state.key.as_str()), String::new()];
    lines.push(counted(holders.len(), "holder"));
    lines.extend(holders.iter().map(|holder| of_holder(holder, now)));
    lines.push(String::new());
    lines.push(counted(waiters.len(), "waiter"));
    lines.extend(waiters.iter().map(|waiter| {
        let info = waiter.client_info.as_ref();
        let since = age(info, now).map_or_else(|| "-".to_owned(), short);
        let site = plain(site_of(info));
        format!("  {site}  {}  waits for {since}, {}", client(info), mode(waiter.mode))
    }));
    lines
}

fn of_holder(holder: &Holder, now: Moment) -> String {
    let info = holder.client_info.as_ref();
    let since = age(info, now).map_or_else(|| "-".to_owned(), short);
    format!(
        "  {}{}  {}  since {since}, {}, token {}, ends in {}",
        state_of(holder),
        plain(site_of(info)),
        client(info),
        mode(holder.mode),
        holder.token,
        short(holder.expires_in),
    )
}

fn of_site(name: &str, site: &Site) -> Vec<String> {
    let mut lines = vec![plain(name), String::new()];
    lines.push(format!("waited for {}, in {} waits", short(site.waited), site.waits));
    if let Some(hold) = &site.worst_hold {
        let (key, waited) = (plain(hold.key.as_str()), short(hold.waited));
        lines.push(format!("worst hold: {key} with token {}, waited for {waited}", hold.token));
    }
    lines.extend([String::new(), "who waited:".to_owned()]);
    lines.extend(site.by_waiter().into_iter().map(|(waiter, waited)| {
        let part = percent(share(waited, site.waited));
        format!("  {part:>4}  {:>8}  {}", short(waited), plain(waiter))
    }));
    let mut keys: Vec<_> = site.keys.iter().collect();
    keys.sort_by(|one, other| other.1.cmp(one.1).then(one.0.as_str().cmp(other.0.as_str())));
    lines.extend([String::new(), "with these keys:".to_owned()]);
    lines.extend(keys.into_iter().map(|(key, waited)| {
        let part = percent(share(*waited, site.waited));
        format!("  {part:>4}  {:>8}  {}", short(*waited), plain(key.as_str()))
    }));
    lines
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
