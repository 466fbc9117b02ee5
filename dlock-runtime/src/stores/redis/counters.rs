//! The names of the counters of tokens: one for a server, and in a Cluster one for each slot.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::slots::Slot;

/// The counters of one backend.
pub(super) enum Counters {
    One(Arc<str>),
    /// Those of a Cluster, whose names begin with this.
    BySlot(String),
}

const SLOTS: usize = 16_384;

/// For each slot the first number that is hashed to it, so that a counter has the slot of its locks.
static NUMBERS: LazyLock<HashMap<Slot, u32>> = LazyLock::new(|| {
    let mut numbers = HashMap::with_capacity(SLOTS);
    for number in 0_u32.. {
        numbers.entry(Slot::for_key(number.to_string())).or_insert(number);
        if numbers.len() == SLOTS {
            break;
        }
    }
    numbers
});

impl Counters {
    pub(super) fn new(prefix: &str, is_cluster: bool) -> Self {
        let name = format!("{prefix}tokens");
        if is_cluster { Self::BySlot(name) } else { Self::One(name.into()) }
    }

    /// The counter for the lock of this name.
    pub(super) fn of(&self, lock: &str) -> Arc<str> {
        match self {
            Self::One(name) => Arc::clone(name),
            Self::BySlot(name) => {
                let number = NUMBERS[&Slot::for_key(lock)];
                format!("{name}:{{{number}}}").into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_the_slot_of_its_locks() {
        let counters = Counters::new("dlock:", true);
        for number in 0..100 {
            let lock = format!("dlock:{{order:{number}}}");
            assert_eq!(Slot::for_key(&*counters.of(&lock)), Slot::for_key(&lock));
        }
    }
}
