//! Which waiters a store shows: whom nobody sees waiting is blamed on nobody.

/// As in the guide page *operators* of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    All,
    /// One for each process, and those that are `fair`.
    Processes,
    /// Only those that are `fair`, and writers behind readers.
    Fair,
    Nobody,
}

impl Shows {
    /// By the store's URL.
    pub fn of(url: &str) -> Self {
        let scheme = url.split(':').next().unwrap_or_default();
        let word = scheme.split('+').next().unwrap_or_default();
        match word {
            "zookeeper" | "etcd" | "etcds" => Self::All,
            "redis" | "rediss" | "postgres" | "postgresql" => Self::Processes,
            "redlock" | "redlocks" => Self::Nobody,
            _ => Self::Fair,
        }
    }

    /// Is the `since` of a holder the moment of its grant? In a store's own queue, a waiter becomes the holder without
    /// another write.
    pub fn knows_grants(self) -> bool {
        self != Self::All
    }

    /// What the numbers leave out, in one line. `has_seen`: has any waiter been seen?
    pub fn caveat(self, has_seen: bool) -> &'static str {
        match (self, has_seen) {
            (Self::All, true) => "This store shows all waiters.",
            (Self::All, false) => "No waiter was seen, and this store shows all of them.",
            (Self::Processes, true) => {
                "Lower bounds: this store shows one waiter of each process, and none for shared locks or permits that are not `fair`."
            }
            (Self::Processes, false) => {
                "No waiter was seen. This store shows none for shared locks or permits that are not `fair`."
            }
            (Self::Fair, true) => {
                "Lower bounds: this store shows only `fair` waiters, and writers behind readers."
            }
            (Self::Fair, false) => {
                "No waiter was seen. This store shows only `fair` waiters, and writers behind readers: others may wait."
            }
            (Self::Nobody, _) => "This store shows no waiters, so nobody can be blamed here.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_known_by_their_schemes() {
        assert_eq!(Shows::of("redis://h/"), Shows::Processes);
        assert_eq!(Shows::of("redis+sentinel://h/"), Shows::Processes);
        assert_eq!(Shows::of("postgres://h/"), Shows::Processes);
        assert_eq!(Shows::of("sqlite:file"), Shows::Fair);
        assert_eq!(Shows::of("mysql://h/"), Shows::Fair);
        assert_eq!(Shows::of("zookeeper://h/"), Shows::All);
        assert_eq!(Shows::of("redlock://h/"), Shows::Nobody);
    }
}
