//! What the screen shows, and what each key does. It knows no terminal.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::list::{List, Move};
use crate::top::model::Model;
use crate::top::sampling::Answer;
use crate::top::shows::Shows;
use crate::top::table::Table;
use crate::top::{blame, locks};

/// What is watched.
#[derive(Clone, Debug)]
pub struct Title {
    pub store: String,
    pub prefix: String,
    pub interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Locks,
    Blame,
}

/// What is shown instead of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    None,
    Help,
    /// Of a key or of a site.
    Detail(String),
}

/// The store did not answer.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub problem: String,
    pub failures: u32,
    pub pause: Duration,
}

/// What becomes of the program after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    Suspend,
    Quit,
}

/// The screen.
pub struct App {
    pub title: Title,
    pub shows: Shows,
    pub view: View,
    pub page: Page,
    /// How far the page is scrolled.
    pub scrolled: usize,
    pub filter: String,
    /// The filter while it is edited.
    pub edited: Option<String>,
    pub trouble: Option<Trouble>,
    /// How many rows are shown.
    pub height: usize,
    live: Model,
    /// What is shown while the screen is paused.
    paused: Option<Model>,
    locks: List,
    blame: List,
}

impl App {
    pub fn new(model: Model, shows: Shows, title: Title) -> Self {
        Self {
            title,
            shows,
            view: View::Locks,
            page: Page::None,
            scrolled: 0,
            filter: String::new(),
            edited: None,
            trouble: None,
            height: 1,
            live: model,
            paused: None,
            locks: List::sorted_by(locks::SORTED),
            blame: List::sorted_by(blame::SORTED),
        }
    }

    /// The model that is shown.
    pub fn model(&self) -> &Model {
        self.paused.as_ref().unwrap_or(&self.live)
    }

    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub fn note(&mut self, answer: Answer) {
        match answer {
            Answer::Sample(at, locks) => {
                self.live.sample(at, locks);
                self.trouble = None;
            }
            Answer::Failed { problem, pause } => {
                self.live.interrupt();
                let failures = self.trouble.as_ref().map_or(0, |trouble| trouble.failures) + 1;
                self.trouble = Some(Trouble { problem, failures, pause });
            }
        }
    }

    /// The rows of this view, filtered and sorted, and which of them is selected.
    pub fn table(&mut self) -> (Table, &List) {
        let table = self.filtered();
        let height = self.height;
        let list = self.list();
        let mut table = table;
        list.arrange(&mut table, height);
        (table, list)
    }

    pub fn press(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Next::Quit,
            KeyCode::Char('z') if is_control => return Next::Suspend,
            _ if is_control || key.modifiers.contains(KeyModifiers::ALT) => return Next::GoOn,
            _ => {}
        }
        if self.edited.is_some() {
            self.edit(key.code);
        } else if self.page != Page::None {
            return self.turn(key.code);
        } else {
            return self.command(key.code);
        }
        Next::GoOn
    }

    /// A key while the filter is edited.
    fn edit(&mut self, key: KeyCode) {
        let Some(text) = &mut self.edited else { return };
        match key {
            KeyCode::Char(character) => text.push(character),
            KeyCode::Backspace => _ = text.pop(),
            KeyCode::Enter => self.filter = self.edited.take().unwrap_or_default(),
            KeyCode::Esc => self.edited = None,
            _ => {}
        }
    }

    /// A key on a page.
    fn turn(&mut self, key: KeyCode) -> Next {
        match key {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('?') => self.page = Page::None,
            KeyCode::Up => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Down => self.scrolled += 1,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(self.height),
            KeyCode::PageDown => self.scrolled += self.height,
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        Next::GoOn
    }

    /// A key on a table.
    fn command(&mut self, key: KeyCode) -> Next {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Char('b') => self.change_view(),
            KeyCode::Char('s') => self.sort(true),
            KeyCode::Char('S') => self.sort(false),
            KeyCode::Char('r') => self.list().reversed ^= true,
            KeyCode::Char('/') => self.edited = Some(self.filter.clone()),
            KeyCode::Char('p') => {
                self.paused = if self.is_paused() { None } else { Some(self.live.clone()) };
            }
            KeyCode::Char('c') => self.clear(),
            KeyCode::Char('?') => self.open(Page::Help),
            KeyCode::Enter => self.open_detail(),
            _ => self.select(key),
        }
        Next::GoOn
    }

    fn select(&mut self, key: KeyCode) {
        let to = match key {
            KeyCode::Up => Move::Up(1),
            KeyCode::Down => Move::Down(1),
            KeyCode::PageUp => Move::Up(self.height),
            KeyCode::PageDown => Move::Down(self.height),
            KeyCode::Home => Move::First,
            KeyCode::End => Move::Last,
            _ => return,
        };
        let (table, _) = self.table();
        self.list().select(&table, to);
    }

    fn change_view(&mut self) {
        self.view = match self.view {
            View::Locks => View::Blame,
            View::Blame => View::Locks,
        };
    }

    fn sort(&mut self, forward: bool) {
        let columns = self.filtered().columns.len();
        self.list().sort_by_next(columns, forward);
    }

    fn clear(&mut self) {
        self.live.clear();
        if let Some(model) = &mut self.paused {
            model.clear();
        }
    }

    fn open(&mut self, page: Page) {
        (self.page, self.scrolled) = (page, 0);
    }

    fn open_detail(&mut self) {
        let (table, list) = self.table();
        if let Some(row) = list.row(&table) {
            let id = row.id.clone();
            self.open(Page::Detail(id));
        }
    }

    fn filtered(&self) -> Table {
        let mut table = match self.view {
            View::Locks => locks::table(self.model()),
            View::Blame => blame::table(self.model()),
        };
        table.filter(self.edited.as_ref().unwrap_or(&self.filter));
        table
    }

    fn list(&mut self) -> &mut List {
        match self.view {
            View::Locks => &mut self.locks,
            View::Blame => &mut self.blame,
        }
    }
}
