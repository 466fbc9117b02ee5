//! What happened in a schedule: a hash of every event, and on request a timeline that people can read.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Nanos;

/// The trace of one schedule.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    notes: Option<Vec<Note>>,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    at: Nanos,
    process: Option<String>,
    text: String,
}

impl Trace {
    /// A trace that is a hash and nothing else.
    pub(super) const fn hashed() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, notes: None }
    }

    /// A trace with a timeline.
    pub(super) fn recorded() -> Self {
        Self { notes: Some(Vec::new()), ..Self::hashed() }
    }

    pub(super) const fn is_recording(&self) -> bool {
        self.notes.is_some()
    }

    /// Adds a number to the hash.
    pub(super) const fn mix(&mut self, number: u64) {
        // The multiplication of FNV-1a, on words, with a shift that brings the high bits down.
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        self.hash ^= self.hash >> 29;
    }

    pub(super) fn note(&mut self, at: Nanos, process: Option<String>, text: String) {
        if let Some(notes) = &mut self.notes {
            notes.push(Note { at, process, text });
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The timeline, a line for each note.
    pub(super) fn into_timeline(self) -> Timeline {
        Timeline(self.notes.unwrap_or_default())
    }
}

/// A hash of how a value is printed.
pub(super) fn digest(value: &impl fmt::Debug) -> u64 {
    struct Digest(u64);

    impl fmt::Write for Digest {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            // FNV-1a.
            let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            self.0 = text.bytes().fold(self.0, mix);
            Ok(())
        }
    }

    let mut digest = Digest(0xcbf2_9ce4_8422_2325);
    // A value that cannot be printed is hashed as far as it goes.
    let _ = write!(digest, "{value:?}");
    digest.0
}

/// What each process did, and which faults there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline(Vec<Note>);

impl Timeline {
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
}

/// One line for each event: the simulated time, who, and what.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |note: &Note| note.process.clone().unwrap_or_else(|| "~".to_owned());
        let width = self.0.iter().map(|note| name(note).chars().count()).max().unwrap_or(0);
        for note in &self.0 {
            let mut time = String::new();
            let seconds = Duration::from_nanos(note.at).as_secs_f64();
            write!(time, "{seconds:.6}")?;
            writeln!(f, "{time:>12} s  {:width$}  {}", name(note), note.text)?;
        }
        Ok(())
    }
}
