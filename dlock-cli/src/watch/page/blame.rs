//! The table below the timeline: who was waited for.

use std::fmt::Write as _;

use super::html::escaped;
use crate::top::blame::{SORTED, table};
use crate::top::model::Model;

/// How many sites are shown.
const MOST: usize = 100;

pub fn section(model: &Model) -> String {
    let mut table = table(model);
    table.sort(SORTED, false);
    if table.rows.is_empty() {
        return "<p class=\"none\">Nobody was seen waiting.</p>".to_owned();
    }
    let left_out = table.rows.len().saturating_sub(MOST);
    table.rows.truncate(MOST);
    let number =
        |position: usize| if table.columns[position].is_number { " class=\"n\"" } else { "" };
    let mut html = "<div class=\"wide\"><table><thead><tr>".to_owned();
    for (position, column) in table.columns.iter().enumerate() {
        // Writing into a `String` does not fail.
        let _ = write!(html, "<th{}>{}</th>", number(position), column.name.to_lowercase());
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        let _ = write!(html, "<tr data-s=\"{}\">", escaped(&row.searched));
        for (position, (text, _)) in row.cells.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", number(position), escaped(text));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    if left_out > 0 {
        let _ = write!(html, "<p>{left_out} more sites, with shorter waits, are left out.</p>");
    }
    html
}
