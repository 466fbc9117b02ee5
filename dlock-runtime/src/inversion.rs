//! Locks that are nested in different orders, which may make tasks wait for each other.

use std::fmt;

/// A lock that was requested while another one was held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nesting {
    /// The template of the lock that was held.
    pub held: String,
    /// The template of the lock that was requested.
    pub wanted: String,
    /// The function that requested it.
    pub site: String,
    /// The templates of all locks that the task held, the outermost first, and the one that it requested.
    pub stack: Vec<String>,
}

#[cfg(any(debug_assertions, feature = "lockdep"))]
impl Nesting {
    pub(crate) fn new(held: &str, wanted: &str, site: &str, stack: Vec<String>) -> Self {
        Self { held: held.to_owned(), wanted: wanted.to_owned(), site: site.to_owned(), stack }
    }
}

/// `shop::move locks account:<id> > vault:<id>`.
impl fmt::Display for Nesting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} locks {}", self.site, self.stack.join(" > "))
    }
}

/// Two orders in which locks are nested, of which one is the reverse of the other. Tasks that follow them at the same
/// moment wait for each other; returned by [`Registry::inversions`](crate::Registry::inversions).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inversion {
    /// The nesting that showed it.
    pub nesting: Nesting,
    /// What was seen before: a nesting the other way round, or several that lead there.
    pub others: Vec<Nesting>,
}

#[cfg(any(debug_assertions, feature = "lockdep"))]
impl Inversion {
    pub(crate) const fn new(nesting: Nesting, others: Vec<Nesting>) -> Self {
        Self { nesting, others }
    }
}

impl fmt::Display for Inversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, but ", self.nesting)?;
        for (at, other) in self.others.iter().enumerate() {
            let separator = if at > 0 { ", and " } else { "" };
            write!(f, "{separator}{other}")?;
        }
        Ok(())
    }
}
