//! Text that came from others, on a line of limited width.

use std::fmt::Write as _;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What stands for text that is left out.
const ELLIPSIS: char = '…';

/// How many cells it takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Without characters that move the cursor, or that change the order of what follows them: keys and labels are any text.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            // Writing into a `String` does not fail.
            let _ = write!(plain, "{}", character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Directions, joiners and the like.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// At most so wide: of a longer text, the beginning and the end.
pub fn shortened(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let Some(room) = most.checked_sub(1) else { return String::new() };
    let end = room / 3;
    let tail: String = fitting(text.chars().rev(), end).into_iter().rev().collect();
    let head: String = fitting(text.chars(), room - width(&tail)).into_iter().collect();
    format!("{head}{ELLIPSIS}{tail}")
}

/// As many characters as fit.
fn fitting(characters: impl Iterator<Item = char>, most: usize) -> Vec<char> {
    let mut taken = 0;
    let fits = |character: &char| {
        taken += character.width().unwrap_or_default();
        taken <= most
    };
    characters.take_while(fits).collect()
}

/// Exactly so wide.
pub fn fitted(text: &str, cells: usize, to_the_right: bool) -> String {
    let text = shortened(text, cells);
    let space = " ".repeat(cells.saturating_sub(width(&text)));
    if to_the_right { space + &text } else { text + &space }
}

/// A length of time in few characters: `0.35s`, `12s`, `3m 20s`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.2}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\u{a}b");
        assert_eq!(plain("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(plain("größe 在庫 🦀"), "größe 在庫 🦀");
    }

    #[test]
    fn long_text_keeps_its_ends() {
        assert_eq!(shortened("product:1234567890", 10), "produc…890");
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("在庫在庫在庫", 5), "在庫…");
        for cells in 0..20 {
            for text in
                ["product:1234567890", "在庫在庫在庫在庫", "e\u{301}e\u{301}e\u{301}", "🦀🦀🦀"]
            {
                assert_eq!(width(&fitted(text, cells, true)), cells, "{text}");
            }
        }
    }

    #[test]
    fn time_has_two_units_at_most() {
        let shown = [350, 9_990, 12_700, 200_000, 5_000_000, 100_000_000]
            .map(|millis| short(Duration::from_millis(millis)));
        assert_eq!(shown, ["0.35s", "9.99s", "12s", "3m 20s", "1h 23m", "1d 03h"]);
    }
}
