//! Draws the screen into cells.

use std::time::Duration;

use dlock_runtime::backend::MAX_LISTED;
use ratatui::buffer::Buffer;
use ratatui::style::{Modifier, Style};

use super::app::{App, Page, View};
use super::detail;
use super::theme::Theme;
use crate::top::text::{plain, short, shortened, width};

/// What the bottom line says.
const KEYS: &str =
    "Tab view  s sort  r reverse  / filter  Enter detail  p pause  c clear  ? help  q quit";

/// `now`: on the clock of the samples.
pub fn draw(app: &mut App, now: Duration, theme: Theme, cells: &mut Buffer) {
    let mut canvas = Canvas { cells, theme };
    let height = canvas.cells.area.height;
    if height == 0 || canvas.cells.area.width == 0 {
        return;
    }
    canvas.title(app);
    let note = note(app, now);
    let has_note = note.is_some() && height > 3;
    if let Some((text, style)) = note.filter(|_| has_note) {
        canvas.line(1, &text, style(theme));
    }
    let first = 1 + u16::from(has_note);
    let end = height.saturating_sub(1).max(first);
    app.height = usize::from(end - first).saturating_sub(1).max(1);
    if app.page == Page::None {
        canvas.table(app, first, end);
    } else {
        canvas.page(app, first, end);
    }
    if height > 1 {
        canvas.bottom(app, height - 1);
    }
}

/// The title, and the filter while it is edited.
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);

type Styled = fn(Theme) -> Style;

/// One line below the title: what is wrong, or what the numbers leave out.
fn note(app: &App, now: Duration) -> Option<(String, Styled)> {
    let age = app.model().now().map(|sampled| now.saturating_sub(sampled.elapsed));
    if let Some(trouble) = &app.trouble {
        let picture = age.map_or_else(String::new, |age| format!("picture {} old; ", short(age)));
        let times =
            if trouble.failures > 1 { format!(" ({}×)", trouble.failures) } else { String::new() };
        let (pause, problem) = (short(trouble.pause), plain(&trouble.problem));
        let text = format!("STORE FAILS{times}: {picture}asked every {pause}: {problem}");
        return Some((text, Theme::trouble));
    }
    if app.is_paused() {
        let age =
            age.map_or_else(String::new, |age| format!(": the picture is {} old", short(age)));
        return Some((format!("PAUSED{age}"), Theme::trouble));
    }
    if app.model().samples() == 0 {
        return Some(("waiting for the first sample".to_owned(), Theme::note));
    }
    let caveat = app.shows.caveat(app.model().has_seen_waiters());
    (app.view == View::Blame).then(|| (caveat.to_owned(), Theme::note as Styled))
}

/// The cells, and how they look.
struct Canvas<'a> {
    cells: &'a mut Buffer,
    theme: Theme,
}

impl Canvas<'_> {
    fn title(&mut self, app: &App) {
        let view = match app.view {
            View::Locks => "[locks] blame",
            View::Blame => "locks [blame]",
        };
        let locks = app.model().locks().filter(|lock| !lock.is_free()).count();
        // A longer list is cut by the store.
        let more = if locks >= MAX_LISTED { " or more" } else { "" };
        let waiters: usize = app.model().locks().map(|lock| lock.state.waiters.len()).sum();
        let title = &app.title;
        let prefix = if title.prefix.is_empty() {
            String::new()
        } else {
            format!("  keys {}…", shortened(&plain(&title.prefix), 24))
        };
        let interval = humantime::format_duration(title.interval);
        let text = format!(
            "dlock top  {view}  {}{prefix}  every {interval}  locks {locks}{more}  waiters {waiters}",
            plain(&title.store)
        );
        self.line(0, &text, TITLE);
    }

    fn table(&mut self, app: &mut App, first: u16, end: u16) {
        if first >= end {
            return;
        }
        let (table, list) = app.table();
        let widths = table.widths(self.width());
        let head = table.head(&widths, Some((list.sorted, list.reversed)));
        self.line(first, &head, self.theme.head());
        let rows = table.rows.iter().enumerate().skip(list.first);
        for (y, (position, row)) in (first + 1..end).zip(rows) {
            let is_selected = position == list.selected;
            let style =
                if is_selected { self.theme.selected(row.tone) } else { self.theme.row(row.tone) };
            self.line(y, &table.row(row, &widths), style);
        }
        if table.rows.is_empty() && first + 1 < end {
            self.line(first + 1, nothing(app), self.theme.note());
        }
    }

    fn page(&mut self, app: &mut App, first: u16, end: u16) {
        let lines = detail::lines(app);
        let room = usize::from(end.saturating_sub(first));
        app.scrolled = app.scrolled.min(lines.len().saturating_sub(room));
        for (y, line) in (first..end).zip(lines.iter().skip(app.scrolled)) {
            self.line(y, line, Style::new());
        }
    }

    fn bottom(&mut self, app: &App, y: u16) {
        if let Some(text) = &app.edited {
            // Of a long text, the end is what is typed.
            let text = plain(text);
            let room = self.width().saturating_sub(2);
            let tail = tail(&text, room);
            return self.line(y, &format!("/{tail}_"), TITLE);
        }
        let keys = match app.page {
            Page::None if app.filter.is_empty() => KEYS.to_owned(),
            Page::None => format!("filter `{}`  / change  {KEYS}", plain(&app.filter)),
            _ => "Esc back  arrows scroll  q quit".to_owned(),
        };
        self.line(y, &keys, self.theme.note());
    }

    /// Fills a line.
    fn line(&mut self, y: u16, text: &str, style: Style) {
        let area = self.cells.area;
        let room = usize::from(area.width);
        let text = if width(text) > room { cut(text, room) } else { text.to_owned() };
        let text = text.clone() + &" ".repeat(room.saturating_sub(width(&text)));
        self.cells.set_stringn(area.x, area.y + y, text, room, style);
    }

    fn width(&self) -> usize {
        usize::from(self.cells.area.width)
    }
}

fn nothing(app: &App) -> &'static str {
    if !app.filter.is_empty() || app.edited.is_some() {
        return "nothing matches the filter";
    }
    match app.view {
        View::Locks => "no lock is held or waited for",
        View::Blame => "nobody was seen to wait since the counters began",
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str, room: usize) -> String {
    let mut end = String::new();
    for character in text.chars() {
        end.push(character);
        if width(&end) >= room {
            end.pop();
            break;
        }
    }
    end + "…"
}

/// The end of a text.
fn tail(text: &str, room: usize) -> String {
    let mut start = text;
    while width(start) > room {
        let mut characters = start.chars();
        characters.next();
        start = characters.as_str();
    }
    start.to_owned()
}
