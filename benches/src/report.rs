//! What a run shows: a table, JSON, pictures, and the table in the documentation.

mod chart;
mod document;
mod picture;
mod table;

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::machine::Machine;
use crate::outcome::Measured;

/// The results of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Whether it was a short run.
    pub is_quick: bool,
    /// The rows that were measured.
    pub rows: Vec<Measured>,
    /// The rows that were not, and why.
    pub left_out: Vec<String>,
}

impl Report {
    /// Writes everything as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, serde_json::to_string_pretty(self)? + "\n")
    }

    /// Draws the charts into this folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn draw(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (name, chart) in chart::all(self) {
            svg::save(folder.join(name), &chart)?;
        }
        Ok(())
    }

    /// Replaces the table in a document.
    ///
    /// # Errors
    /// If the document has no place for it, or cannot be read or written.
    pub fn write_into(&self, document: &Path) -> io::Result<()> {
        document::write(self, document)
    }
}

pub use table::show;
