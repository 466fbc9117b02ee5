//! What is drawn, and what keys do.

use std::time::{Duration, SystemTime};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use dlock_runtime::backend::{Holder, LockState, Waiter};
use dlock_runtime::{FencingToken, Mode, OwnerId};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::app::{App, Next, Title, View};
use super::draw::draw;
use super::theme::Theme;
use crate::top::model::samples::{at, client, night, secs};
use crate::top::model::{Model, Moment};
use crate::top::sampling::Answer;
use crate::top::shows::Shows;

pub fn title() -> Title {
    Title {
        store: "redis://cache.internal".to_owned(),
        prefix: String::new(),
        interval: Duration::from_secs(1),
    }
}

fn empty() -> App {
    App::new(Model::new(true), Shows::Processes, title())
}

/// Five seconds of a few locks.
fn busy() -> App {
    let mut app = empty();
    let nights = ["product:1", "product:2", "order:7"].map(|key| (key, key.len() as u64));
    let nights = nights.map(|(key, first)| night(key, 0.7, 20, 3.0, first));
    for second in 0..6_u8 {
        let moment = secs(f64::from(second));
        let mut locks: Vec<_> = nights.iter().map(|night| night.state(moment)).collect();
        locks.push(held("job:report", "dlock run report"));
        app.note(Answer::Sample(at(moment), locks));
    }
    app
}

fn held(key: &str, site: &str) -> LockState {
    let holder = Holder::new(Some(OwnerId::from_bytes([7; 16])), FencingToken::new(9), secs(20.0))
        .with_client_info(Some(client(site, 12, Duration::ZERO)));
    LockState::new(key.into(), vec![holder], vec![])
}

pub fn cells(app: &mut App, width: u16, height: u16, now: Duration, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("cells");
    terminal.draw(|frame| draw(app, now, theme, frame.buffer_mut())).expect("drawn");
    terminal.backend().buffer().clone()
}

fn lines(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let buffer = cells(app, width, height, secs(5.0), Theme::PLAIN);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

pub fn press(app: &mut App, keys: impl IntoIterator<Item = KeyCode>) -> Next {
    let pressed = keys.into_iter().map(|key| app.press(KeyEvent::new(key, KeyModifiers::NONE)));
    pressed.last().unwrap_or(Next::GoOn)
}

fn word(text: &str) -> impl Iterator<Item = KeyCode> {
    text.chars().map(KeyCode::Char)
}

/// The keys in their order on the screen.
fn keys(app: &mut App) -> Vec<String> {
    let lines = lines(app, 120, 20);
    let rows = lines.iter().filter_map(|line| line.split_whitespace().next());
    rows.filter(|key| key.contains(':') && key.starts_with(char::is_lowercase))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_busiest_locks_come_first() {
    let mut app = busy();
    let shown = lines(&mut app, 120, 12);
    assert!(
        shown[0].starts_with(
            "dlock top  [locks] blame  redis://cache.internal  every 1s  locks 4  waiters "
        ),
        "{shown:#?}"
    );
    assert!(shown[1].starts_with("KEY         WAITERS▼"), "{shown:#?}");
    assert_eq!(keys(&mut app).last().map(String::as_str), Some("job:report"));
    assert!(shown[2].contains("shop::nightly_inventory"), "{shown:#?}");
}

#[test]
fn the_blame_names_the_culprit_and_what_is_left_out() {
    let mut app = busy();
    press(&mut app, [KeyCode::Tab]);
    assert_eq!(app.view, View::Blame);
    let shown = lines(&mut app, 120, 12);
    assert!(
        shown[1].starts_with("Lower bounds: this store shows one waiter of each process"),
        "{shown:#?}"
    );
    assert!(shown[3].starts_with("shop::nightly_inventory"), "{shown:#?}");
    press(&mut app, [KeyCode::Enter]);
    let shown = lines(&mut app, 120, 20).join("\n");
    assert!(shown.contains("who waited:") && shown.contains("shop::purchase"), "{shown}");
    press(&mut app, [KeyCode::Esc, KeyCode::Char('c')]);
    let shown = lines(&mut app, 120, 12).join("\n");
    assert!(shown.contains("nobody was seen to wait since"), "{shown}");
}

#[test]
fn rows_can_be_sorted_and_reversed() {
    let mut app = busy();
    press(&mut app, [KeyCode::Char('S')]);
    assert_eq!(keys(&mut app), ["job:report", "order:7", "product:1", "product:2"]);
    press(&mut app, [KeyCode::Char('r')]);
    assert_eq!(keys(&mut app), ["product:2", "product:1", "order:7", "job:report"]);
    assert!(lines(&mut app, 120, 9)[1].starts_with("KEY▼"));
    for _ in 0..50 {
        press(&mut app, [KeyCode::Char('s')]);
        assert_eq!(keys(&mut app).len(), 4);
    }
}

#[test]
fn a_filter_is_edited_and_kept_or_not() {
    let mut app = busy();
    press(&mut app, word("/rodx"));
    press(&mut app, [KeyCode::Backspace]);
    let shown = lines(&mut app, 120, 12);
    assert_eq!(shown[11], "/rod_");
    assert_eq!(keys(&mut app).len(), 2, "while it is edited");
    press(&mut app, [KeyCode::Enter]);
    assert_eq!(keys(&mut app).len(), 2);
    press(&mut app, word("/q"));
    assert_eq!(keys(&mut app).len(), 0);
    assert_eq!(press(&mut app, [KeyCode::Esc]), Next::GoOn);
    assert_eq!(keys(&mut app).len(), 2, "as before");
    press(&mut app, word("/"));
    press(&mut app, [KeyCode::Backspace; 3]);
    press(&mut app, word("REPORT"));
    press(&mut app, [KeyCode::Enter]);
    assert_eq!(keys(&mut app), ["job:report"], "by its site");
}

#[test]
fn the_selected_lock_stays_selected() {
    let mut app = busy();
    press(&mut app, [KeyCode::Char('S'), KeyCode::Down, KeyCode::Char('r'), KeyCode::Enter]);
    assert_eq!(lines(&mut app, 80, 12)[1], "order:7");
    press(&mut app, [KeyCode::Esc, KeyCode::End, KeyCode::Enter]);
    assert_eq!(lines(&mut app, 80, 12)[1], "job:report");
    press(
        &mut app,
        [
            KeyCode::Esc,
            KeyCode::Home,
            KeyCode::PageDown,
            KeyCode::PageUp,
            KeyCode::Up,
            KeyCode::Enter,
        ],
    );
    let shown = lines(&mut app, 100, 20);
    assert_eq!(shown[1], "product:2");
    assert!(shown[3].starts_with("1 holder"), "{shown:#?}");
    assert!(shown[6].ends_with("waiters"), "{shown:#?}");
}

#[test]
fn a_long_list_is_scrolled() {
    let mut app = empty();
    let locks = (0..100).map(|number| held(&format!("k{number:03}"), "site")).collect();
    app.note(Answer::Sample(at(secs(5.0)), locks));
    press(&mut app, [KeyCode::Char('S')]);
    lines(&mut app, 80, 10);
    press(&mut app, [KeyCode::PageDown, KeyCode::PageDown]);
    let shown = lines(&mut app, 80, 10);
    assert!(shown[8].starts_with("k014"), "{shown:#?}");
    press(&mut app, [KeyCode::End]);
    assert!(lines(&mut app, 80, 10)[8].starts_with("k099"));
}

#[test]
fn a_store_that_fails_is_one_line_and_the_picture_stays() {
    let mut app = busy();
    let problem = "cannot connect\n\u{1b}[31mto it".to_owned();
    app.note(Answer::Failed { problem, pause: secs(2.0) });
    let shown = lines(&mut app, 120, 12);
    assert!(
        shown[1].starts_with("STORE FAILS: picture 0.00s old; asked every 2.00s: cannot connect\\u{a}\\u{1b}[31mto it"),
        "{shown:#?}"
    );
    assert_eq!(keys(&mut app).len(), 4);
    app.note(Answer::Failed { problem: "again".to_owned(), pause: secs(4.0) });
    assert!(lines(&mut app, 120, 12)[1].starts_with("STORE FAILS (2×)"));
    app.note(Answer::Sample(at(secs(9.0)), vec![]));
    assert!(lines(&mut app, 120, 12)[1].starts_with("KEY"));
}

#[test]
fn a_paused_picture_stays() {
    let mut app = busy();
    press(&mut app, word("p"));
    app.note(Answer::Sample(at(secs(60.0)), vec![]));
    assert_eq!(keys(&mut app).len(), 4);
    assert!(lines(&mut app, 120, 12)[1].starts_with("PAUSED: the picture is "));
    press(&mut app, word("p"));
    assert_eq!(keys(&mut app).len(), 0);
}

#[test]
fn every_size_and_every_text_can_be_drawn() {
    let names = ["", "\u{1b}[2J\r\n\t\0", "在庫:🦀👨‍👩‍👧", "e\u{301}\u{202e}x", &"long ".repeat(100)];
    let mut app = empty();
    for second in [1.0, 2.0, 3.0] {
        let locks = names.map(|name| {
            let mut lock = held(&format!("key{name}"), "");
            let site = client("a%1B%5B2J%0A%E5%9C%A8%E5%BA%AB", 3, Duration::ZERO);
            lock.holders[0].client_info = Some(site.clone());
            lock.waiters = vec![Waiter::new(None, Mode::Shared, Some(site)); 3];
            lock
        });
        app.note(Answer::Sample(at(secs(second)), locks.to_vec()));
    }
    app.note(Answer::Failed { problem: "x".repeat(500), pause: secs(1.0) });
    let screens: [&[KeyCode]; 7] = [
        &[],
        &[KeyCode::Enter],
        &[KeyCode::Esc, KeyCode::Tab],
        &[KeyCode::Enter],
        &[KeyCode::Esc, KeyCode::Char('?'), KeyCode::PageDown],
        &[KeyCode::Esc, KeyCode::Char('/'), KeyCode::Char('庫')],
        &[KeyCode::Enter, KeyCode::Char('p'), KeyCode::End],
    ];
    for pressed in screens {
        press(&mut app, pressed.iter().copied());
        let wide = [(20, 5), (300, 5), (7, 100), (400, 120)];
        let small = (1..24).flat_map(|width| (1..9).map(move |height| (width, height)));
        for (width, height) in small.chain(wide) {
            let buffer = cells(&mut app, width, height, secs(4.0), Theme::COLOURS);
            let controls =
                buffer.content().iter().any(|cell| cell.symbol().contains(char::is_control));
            assert!(!controls, "{width}x{height}");
        }
    }
}

#[test]
fn a_small_terminal_shows_what_matters() {
    let mut app = busy();
    let shown = lines(&mut app, 20, 5);
    assert!(shown[1].starts_with("KEY") && shown[1].contains("WAITERS"), "{shown:#?}");
    assert!(shown[2].starts_with("order:7 "), "{shown:#?}");
}

#[test]
fn no_colours_are_used_if_nobody_wants_them() {
    let mut app = busy();
    let colours = |buffer: &Buffer| {
        buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!colours(&cells(&mut app, 80, 10, secs(5.0), Theme::PLAIN)));
    assert!(colours(&cells(&mut app, 80, 10, secs(5.0), Theme::COLOURS)));
}

#[test]
fn some_keys_end_the_screen() {
    let mut app = busy();
    assert_eq!(press(&mut app, [KeyCode::Char('q')]), Next::Quit);
    assert_eq!(press(&mut app, [KeyCode::Esc]), Next::Quit);
    let control = |key| KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
    assert_eq!(app.press(control('z')), Next::Suspend);
    press(&mut app, word("/"));
    assert_eq!(press(&mut app, word("q")), Next::GoOn, "text of a filter");
    assert_eq!(app.press(control('c')), Next::Quit);
}

#[test]
fn the_age_of_a_hold_is_not_claimed_where_the_store_does_not_know_it() {
    let mut app = App::new(Model::new(false), Shows::All, title());
    let now = Moment { elapsed: secs(5.0), clock: SystemTime::UNIX_EPOCH + secs(1.0) };
    app.note(Answer::Sample(now, vec![held("k", "site")]));
    assert!(lines(&mut app, 100, 5)[2].contains(" <0.00s "));
}
