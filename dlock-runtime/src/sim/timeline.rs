//! A timeline that people can read: who did what, and who held a lock meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Nanos;

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) at: Nanos,
    pub(super) process: Option<String>,
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// What a line means for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Starts,
    Killed,
    Paused,
    Resumed,
    Acquires {
        key: String,
        token: u64,
    },
    /// It has released the lock, or lost it.
    Leaves {
        key: String,
        token: u64,
    },
    /// How a lock works: a message between a process and a store of locks.
    Protocol,
    Other,
}

/// What each process did, and which faults there were.
///
/// It is printed as one line for each event: the simulated time, a lane for each process, who, and what. With `{:#}` it
/// has the messages between processes and stores of locks, too. Fencing tokens are printed as `#1`, `#2` and so on, in
/// their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline(Vec<Note>);

impl Timeline {
    pub(super) const fn new(notes: Vec<Note>) -> Self {
        Self(notes)
    }

    /// Returns the number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The processes that do something, in the order in which they began to.
    fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for note in &self.0 {
            let is_active = !matches!(note.kind, Kind::Starts | Kind::Killed | Kind::Protocol);
            if let Some(name) = note.process.as_deref().filter(|_| is_active)
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names.sort_by_key(|name| {
            self.0.iter().position(|note| note.process.as_deref() == Some(*name))
        });
        names
    }

    /// How each fencing token is printed.
    fn tokens(&self) -> BTreeMap<u64, String> {
        let granted = self.0.iter().filter_map(|note| match note.kind {
            Kind::Acquires { token, .. } => Some(token),
            _ => None,
        });
        let tokens: BTreeSet<u64> = granted.collect();
        tokens.into_iter().zip(1..).map(|(token, at)| (token, format!("#{at}"))).collect()
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens();
        let mut lanes = Lanes::new(self.names());
        let width = lanes.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for note in &self.0 {
            lanes.apply(note);
            let is_known = note.process.as_deref().is_none_or(|name| lanes.names.contains(&name));
            if !f.alternate() && (note.kind == Kind::Protocol || !is_known) {
                continue;
            }
            let seconds = Duration::from_nanos(note.at).as_secs_f64();
            let name = note.process.as_deref().unwrap_or("~");
            let mut text = note.text.clone();
            for (token, short) in &tokens {
                text = text.replace(&token.to_string(), short);
            }
            writeln!(f, "{seconds:>11.6}  {lanes} {name:width$}  {text}")?;
        }
        Ok(())
    }
}

/// What each process is doing.
struct Lanes<'a> {
    names: Vec<&'a str>,
    lanes: Vec<Lane>,
}

#[derive(Clone, Default)]
struct Lane {
    is_alive: bool,
    is_paused: bool,
    holds: BTreeSet<(String, u64)>,
}

impl<'a> Lanes<'a> {
    fn new(names: Vec<&'a str>) -> Self {
        let lanes = vec![Lane::default(); names.len()];
        Self { names, lanes }
    }

    fn apply(&mut self, note: &Note) {
        let at = self.names.iter().position(|name| Some(*name) == note.process.as_deref());
        let Some(lane) = at.map(|at| &mut self.lanes[at]) else { return };
        match &note.kind {
            Kind::Starts => *lane = Lane { is_alive: true, ..Lane::default() },
            Kind::Killed => *lane = Lane::default(),
            Kind::Paused => lane.is_paused = true,
            Kind::Resumed => lane.is_paused = false,
            Kind::Acquires { key, token } => {
                lane.holds.insert((key.clone(), *token));
            }
            Kind::Leaves { key, token } => {
                lane.holds.remove(&(key.clone(), *token));
            }
            Kind::Protocol | Kind::Other => {}
        }
    }
}

impl fmt::Display for Lanes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lane in &self.lanes {
            let sign = match lane {
                Lane { is_alive: false, .. } => ' ',
                Lane { is_paused: true, .. } => '┆',
                Lane { holds, .. } if holds.is_empty() => '│',
                Lane { .. } => '█',
            };
            f.write_char(sign)?;
            f.write_char(' ')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(at: Nanos, process: &str, kind: Kind, text: &str) -> Note {
        Note { at: at * 1_000_000, process: Some(process.to_owned()), kind, text: text.to_owned() }
    }

    #[test]
    fn lanes_show_who_holds_a_lock_and_tokens_are_short() {
        let (key, token) = ("k".to_owned(), 1_800_000_000_000_007);
        let timeline = Timeline(vec![
            note(0, "a", Kind::Starts, "starts"),
            note(0, "b", Kind::Starts, "starts"),
            note(0, "idle", Kind::Starts, "starts"),
            note(1, "b", Kind::Protocol, "store: acquire"),
            note(2, "b", Kind::Acquires { key: key.clone(), token }, "acquires k"),
            note(3, "a", Kind::Other, "writes with 1800000000000007"),
            note(4, "b", Kind::Leaves { key, token }, "releases k"),
        ]);
        let brief = timeline.to_string();
        let lines: Vec<&str> = brief.lines().map(|line| &line["   0.000000  ".len()..]).collect();
        assert_eq!(
            lines,
            [
                "│    a  starts",
                "│ │  b  starts",
                "│ █  b  acquires k",
                "│ █  a  writes with #1",
                "│ │  b  releases k"
            ]
        );
        assert_eq!(format!("{timeline:#}").lines().count(), 7);
    }
}
