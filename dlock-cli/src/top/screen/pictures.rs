//! The pictures in `docs/operating.md` show what the screen shows. With `DLOCK_BLESS=1` they are drawn anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::KeyCode;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::app::App;
use super::tests::{cells, press, title};
use super::theme::Theme;
use crate::top::model::Model;
use crate::top::model::samples::{History, at, night, secs};
use crate::top::sampling::Answer;
use crate::top::shows::Shows;

const SIZE: (u16, u16) = (118, 14);

/// The size of a cell.
const CELL: (f64, f64) = (8.0, 18.0);

const MARGIN: f64 = 10.0;

const BACKGROUND: &str = "#14171c";
const FOREGROUND: &str = "#d5d9e0";

/// A flash sale, while the inventory of the night still runs: it holds each product for nine tenths of the time.
fn sale() -> App {
    let products = [
        ("product:1001", 6.0, 3.4),
        ("product:1002", 4.3, 2.6),
        ("product:1003", 5.1, 2.2),
        ("product:1007", 7.7, 1.6),
        ("product:1012", 3.9, 1.4),
        ("product:1040", 8.3, 0.9),
    ];
    let first = (91_000..).step_by(137);
    let products: Vec<History> = products
        .into_iter()
        .zip(first)
        .map(|((key, cycle, depth), first)| night(key, cycle, 40, depth, first))
        .collect();
    let mut app = App::new(Model::new(true), Shows::Processes, title());
    for second in 0..=63_u64 {
        let moment = Duration::from_secs(second);
        let locks = products.iter().map(|product| product.state(moment)).collect();
        app.note(Answer::Sample(at(moment), locks));
    }
    app
}

#[test]
fn the_locks_are_as_in_the_manual() {
    compare("locks", &mut sale());
}

#[test]
fn the_blame_is_as_in_the_manual() {
    let mut app = sale();
    press(&mut app, [KeyCode::Tab]);
    compare("blame", &mut app);
}

fn compare(name: &str, app: &mut App) {
    let drawn = svg(&cells(app, SIZE.0, SIZE.1, secs(63.0), Theme::COLOURS));
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating"));
    let path = folder.join(format!("{name}.svg"));
    if std::env::var_os("DLOCK_BLESS").is_some() {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(&path, &drawn).expect("a file");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == drawn,
        "`{}` is not what the screen shows: run this test with DLOCK_BLESS=1, and look at it",
        path.display()
    );
}

/// The cells as a picture: one text for each run of cells that look the same.
fn svg(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let width = f64::from(columns) * CELL.0 + 2.0 * MARGIN;
    let height = f64::from(rows) * CELL.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"13\" xml:space=\"preserve\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for y in 0..rows {
        let mut x = 0;
        while x < columns {
            let first = &buffer[(x, y)];
            let end =
                (x..columns).find(|at| !looks_same(first, &buffer[(*at, y)])).unwrap_or(columns);
            let text: String = (x..end).map(|at| buffer[(at, y)].symbol()).collect();
            run(&mut svg, first, x, y, &text);
            x = end;
        }
    }
    svg + "</svg>\n"
}

fn looks_same(one: &Cell, other: &Cell) -> bool {
    one.fg == other.fg && one.modifier == other.modifier
}

fn run(svg: &mut String, look: &Cell, x: u16, y: u16, text: &str) {
    let left = MARGIN + f64::from(x) * CELL.0;
    let top = MARGIN + f64::from(y) * CELL.1;
    let length = f64::from(u16::try_from(text.chars().count()).expect("a line")) * CELL.0;
    let mut ink = colour(look.fg);
    if look.modifier.contains(Modifier::REVERSED) {
        // Writing into a `String` does not fail.
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{length}\" height=\"{}\" fill=\"{ink}\"/>",
            CELL.1
        );
        ink = BACKGROUND;
    }
    let shown = text.trim_end();
    if shown.is_empty() {
        return;
    }
    let length = f64::from(u16::try_from(shown.chars().count()).expect("a line")) * CELL.0;
    let weight = if look.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let shown = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let base = top + 13.0;
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{base}\" textLength=\"{length}\" fill=\"{ink}\"{weight}>{shown}</text>"
    );
}

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Cyan => "#56b6c2",
        Color::Yellow => "#e5c07b",
        Color::Red => "#e06c75",
        Color::DarkGray => "#7f8896",
        _ => FOREGROUND,
    }
}
