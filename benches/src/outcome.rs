//! What a row has measured, and whether that is what it was to reach.

use serde::Serialize;

use crate::contender::Role;
use crate::figure::{Figure, Spread, Unit};
use crate::row::{Family, Goal, Row};

/// The measurements of a row.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The contenders, dlock first.
    pub sides: Vec<Side>,
    /// What a reader must know beside the numbers.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Measurements of dlock alone.
    #[must_use]
    pub fn alone(figures: Vec<Figure>) -> Self {
        Self { sides: vec![Side::dlock(figures)], notes: vec![] }
    }

    /// Something that a reader must know.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn side(&self, name: &str) -> Option<&Side> {
        self.sides.iter().find(|side| side.name == name)
    }
}

/// The measurements of a contender.
#[derive(Debug, Serialize)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub role: Role,
    /// What a reader must know.
    pub remark: &'static str,
    /// Cycles in a second.
    pub rate: Option<Spread>,
    /// dlock's cycles for each of its own, of the same round.
    pub ratio: Option<Spread>,
    /// Everything else.
    pub figures: Vec<Figure>,
}

impl Side {
    /// Figures of dlock.
    #[must_use]
    pub fn dlock(figures: Vec<Figure>) -> Self {
        let (name, remark) = ("dlock".to_owned(), "");
        Self { name, role: Role::Dlock, remark, rate: None, ratio: None, figures }
    }

    /// A figure's value.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

/// A target beside what was measured.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The contender or the figure.
    pub of: &'static str,
    /// Whether it is a ratio to another contender.
    pub is_ratio: bool,
    /// What it is to be.
    pub target: f64,
    /// What it is; nothing if it was not measured.
    pub measured: Option<f64>,
    /// Whether that is good enough.
    pub is_met: bool,
    /// The unit of both.
    pub unit: Unit,
}

impl Verdict {
    fn of(goal: Goal, outcome: &Outcome) -> Self {
        let (of, target, unit, measured, is_ratio) = match goal {
            Goal::Ratio { to, least } => {
                let ratio = outcome.side(to).and_then(|side| side.ratio);
                (to, least, Unit::Times, ratio.map(|ratio| ratio.median), true)
            }
            Goal::AtMost { figure, most, unit } => {
                let measured = outcome.sides.first().and_then(|side| side.figure(figure));
                (figure, most, unit, measured, false)
            }
        };
        let good = |value| if is_ratio { value >= target } else { value <= target };
        Self { of, is_ratio, target, measured, is_met: measured.is_some_and(good), unit }
    }

    /// The target as text.
    #[must_use]
    pub fn shown_target(&self) -> String {
        let sign = if self.is_ratio { '≥' } else { '≤' };
        format!("{sign} {}", self.unit.show(self.target))
    }

    /// Whether it is met, as text.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        match (self.measured, self.is_met) {
            (None, _) => "not measured",
            (_, true) => "met",
            (_, false) => "**missed**",
        }
    }
}

/// A row of the report.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The row's name on the command line.
    pub id: String,
    /// What was measured.
    pub title: String,
    /// The part of the report.
    pub family: Family,
    /// The contenders, dlock first.
    pub sides: Vec<Side>,
    /// The targets.
    pub verdicts: Vec<Verdict>,
    /// What a reader must know beside the numbers.
    pub notes: Vec<String>,
}

impl Measured {
    /// The measurements of this row.
    #[must_use]
    pub fn new(row: &Row, outcome: Outcome) -> Self {
        let verdicts = row.goals.iter().map(|goal| Verdict::of(*goal, &outcome)).collect();
        let Outcome { sides, notes } = outcome;
        let (id, title) = (row.id.clone(), row.title.clone());
        Self { id, title, family: row.family, sides, verdicts, notes }
    }

    /// dlock's own measurements.
    #[must_use]
    pub fn dlock(&self) -> Option<&Side> {
        self.sides.iter().find(|side| side.role == Role::Dlock)
    }

    /// The target for this side's ratio.
    #[must_use]
    pub fn verdict_on(&self, side: &Side) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.is_ratio && verdict.of == side.name)
    }
}
