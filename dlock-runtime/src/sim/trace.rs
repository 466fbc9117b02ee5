//! What happened in a schedule: a hash of every event, and on request the notes for a timeline.

use std::fmt::{self, Write as _};

use super::timeline::{Note, Timeline};

/// The trace of one schedule.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    notes: Option<Vec<Note>>,
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

    pub(super) fn note(&mut self, note: Note) {
        if let Some(notes) = &mut self.notes {
            notes.push(note);
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The timeline, a line for each note.
    pub(super) fn into_timeline(self) -> Timeline {
        Timeline::new(self.notes.unwrap_or_default())
    }
}

/// A hash of how a value is printed.
pub(super) fn digest(value: &impl fmt::Debug) -> u64 {
    struct Digest(u64);

    impl fmt::Write for Digest {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            // FNV-1a.
            let mix =
                |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            self.0 = text.bytes().fold(self.0, mix);
            Ok(())
        }
    }

    let mut digest = Digest(0xcbf2_9ce4_8422_2325);
    // A value that cannot be printed is hashed as far as it goes.
    let _ = write!(digest, "{value:?}");
    digest.0
}
