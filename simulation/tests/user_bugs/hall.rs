//! What several programs share: a hall with seats.

use std::collections::BTreeMap;

use dlock_runtime::FencingToken;
use dlock_runtime::sim::Remote;

use super::shop::Stale;

/// Who has which seat.
#[derive(Debug, Default)]
pub struct Hall {
    guests: BTreeMap<u32, Vec<usize>>,
    newest: BTreeMap<u32, FencingToken>,
}

impl Hall {
    pub fn is_free(&self, seat: u32) -> bool {
        !self.guests.contains_key(&seat)
    }

    pub fn give(&mut self, seat: u32, guest: usize) {
        self.guests.entry(seat).or_default().push(guest);
    }

    /// Refuses an older token than the newest of the seat.
    pub fn fence(&mut self, seat: u32, token: FencingToken) -> Result<(), Stale> {
        let newest = self.newest.entry(seat).or_insert(token);
        if *newest > token {
            return Err(Stale);
        }
        *newest = token;
        Ok(())
    }
}

/// A hall in which every seat is free.
pub fn open() -> Remote<Hall> {
    Remote::new("database", Hall::default())
}

/// What every guest expects.
pub fn check(hall: &Remote<Hall>) {
    hall.peek(|hall| {
        for (seat, guests) in &hall.guests {
            assert!(guests.len() < 2, "seat {seat} is given to guests {guests:?}");
        }
    });
}
