//! Asks before something that cannot be undone, or that others notice.

use std::io::{BufRead as _, Write as _, stderr, stdin};

/// Asks on the terminal.
pub fn is_confirmed(question: &str) -> bool {
    let _ = write!(stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let _ = stdin().lock().read_line(&mut answer);
    matches!(answer.trim(), "y" | "Y" | "yes")
}
