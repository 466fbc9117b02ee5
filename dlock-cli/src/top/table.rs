//! A table of text: which columns there are, their order, and how wide each is.

use super::text::{fitted, width};

/// Between columns.
const GAP: usize = 2;

/// A column.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub is_number: bool,
    /// On a narrow screen, those with the largest are left out.
    pub rank: u8,
    /// It may be shortened to so many cells.
    pub least: Option<usize>,
}

/// What a cell is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    Number(u128),
    Text(String),
}

/// How much a row matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Dim,
    Busy,
    Alarm,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// A key, or a site.
    pub id: String,
    pub cells: Vec<(String, Weight)>,
    pub tone: Tone,
    /// What a filter looks at, in lower case.
    pub searched: String,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    pub columns: &'static [Column],
    pub rows: Vec<Row>,
}

impl Table {
    /// Only rows with this text.
    pub fn filter(&mut self, text: &str) {
        let text = text.to_lowercase();
        self.rows.retain(|row| row.searched.contains(&text));
    }

    /// Sorts by a column: numbers from the largest one, texts from the first one, unless reversed.
    pub fn sort(&mut self, column: usize, reversed: bool) {
        let descending = self.columns[column].is_number != reversed;
        self.rows.sort_by(|one, other| {
            let order = one.cells[column].1.cmp(&other.cells[column].1);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| one.id.cmp(&other.id))
        });
    }

    /// How wide each column is on a line of so many cells; `None` if it is left out.
    pub fn widths(&self, total: usize) -> Vec<Option<usize>> {
        let natural: Vec<_> = (0..self.columns.len()).map(|column| self.natural(column)).collect();
        let mut ranked: Vec<_> = (0..self.columns.len()).collect();
        ranked.sort_by_key(|column| self.columns[*column].rank);
        let mut widths = vec![None; natural.len()];
        let mut left = total;
        for column in &ranked {
            let least =
                self.columns[*column].least.unwrap_or(natural[*column]).min(natural[*column]);
            let gap = if left == total { 0 } else { GAP };
            let is_first = left == total;
            if !is_first && least + gap > left {
                break;
            }
            let least = least.min(left);
            widths[*column] = Some(least);
            left -= least + gap;
        }
        for column in &ranked {
            if let Some(width) = &mut widths[*column] {
                let more = (natural[*column] - (*width).min(natural[*column])).min(left);
                *width += more;
                left -= more;
            }
        }
        widths
    }

    /// The names of the columns. The one that is sorted by is marked.
    pub fn head(&self, widths: &[Option<usize>], sorted: Option<(usize, bool)>) -> String {
        let names = self.columns.iter().enumerate().map(|(position, column)| match sorted {
            Some((by, reversed)) if by == position => {
                let mark = if column.is_number == reversed { '▲' } else { '▼' };
                format!("{}{mark}", column.name)
            }
            _ => column.name.to_owned(),
        });
        let names: Vec<_> = names.collect();
        self.line(names.iter().map(String::as_str), widths)
    }

    /// A row as a line.
    pub fn row(&self, row: &Row, widths: &[Option<usize>]) -> String {
        self.line(row.cells.iter().map(|(text, _)| text.as_str()), widths)
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[Option<usize>]) -> String {
        let cells = cells.zip(widths).zip(self.columns);
        let cells = cells.filter_map(|((text, width), column)| {
            width.map(|width| fitted(text, width, column.is_number))
        });
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP))
    }

    fn natural(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| width(&row.cells[column].0));
        // With room for the mark of the sorted column.
        cells.max().unwrap_or_default().max(self.columns[column].name.len() + 1)
    }
}
