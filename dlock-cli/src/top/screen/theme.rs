//! Colours, or none.

use ratatui::style::{Color, Modifier, Style};

use crate::top::table::Tone;

/// How things are shown.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_colours: bool,
}

impl Theme {
    pub const COLOURS: Self = Self { has_colours: true };
    pub const PLAIN: Self = Self { has_colours: false };

    /// See <https://no-color.org>.
    pub fn of_environment() -> Self {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_refused { Self::PLAIN } else { Self::COLOURS }
    }

    pub fn head(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub fn note(self) -> Style {
        self.coloured(Color::DarkGray)
    }

    pub fn trouble(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn row(self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Dim => self.coloured(Color::DarkGray),
            Tone::Busy => self.coloured(Color::Yellow),
            Tone::Alarm => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    pub fn selected(self, tone: Tone) -> Style {
        self.row(tone).add_modifier(Modifier::REVERSED)
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }
}
