//! Which row of a table is selected, and how the table is sorted.

use crate::top::table::{Row, Table};

/// A table on the screen.
#[derive(Clone, Debug)]
pub struct List {
    pub sorted: usize,
    pub reversed: bool,
    /// The row that is selected, by position.
    pub selected: usize,
    /// The first row that is shown.
    pub first: usize,
    /// The row that was selected by a key: it stays selected wherever it goes.
    id: Option<String>,
}

/// To another row.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    Up(usize),
    Down(usize),
    First,
    Last,
}

impl List {
    pub fn sorted_by(column: usize) -> Self {
        Self { sorted: column, reversed: false, selected: 0, first: 0, id: None }
    }

    /// Sorts the table, and finds the selected row. `height`: how many rows are shown.
    pub fn arrange(&mut self, table: &mut Table, height: usize) {
        table.sort(self.sorted, self.reversed);
        let found = self.id.as_ref().and_then(|id| table.rows.iter().position(|row| row.id == *id));
        let last = table.rows.len().saturating_sub(1);
        self.selected = found.unwrap_or(self.selected).min(last);
        self.scroll(height);
    }

    pub fn select(&mut self, table: &Table, to: Move) {
        let last = table.rows.len().saturating_sub(1);
        self.selected = match to {
            Move::Up(rows) => self.selected.saturating_sub(rows),
            Move::Down(rows) => self.selected.saturating_add(rows).min(last),
            Move::First => 0,
            Move::Last => last,
        };
        self.id = table.rows.get(self.selected).map(|row| row.id.clone());
        if matches!(to, Move::First) {
            // The first row, whichever it will be.
            self.id = None;
        }
    }

    pub fn row<'a>(&self, table: &'a Table) -> Option<&'a Row> {
        table.rows.get(self.selected)
    }

    pub fn sort_by_next(&mut self, columns: usize, forward: bool) {
        let step = if forward { 1 } else { columns - 1 };
        self.sorted = (self.sorted + step) % columns;
        self.reversed = false;
    }

    fn scroll(&mut self, height: usize) {
        let last = self.selected;
        self.first = self.first.min(last).max((last + 1).saturating_sub(height.max(1)));
    }
}
