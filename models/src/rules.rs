//! Sets of rules, from which one can be taken.

use std::fmt;
use std::marker::PhantomData;

/// The rules that a model keeps, of at most 32.
pub struct Rules<R>(u32, PhantomData<R>);

impl<R: Into<u32>> Rules<R> {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX, PhantomData);

    /// All of these but one.
    #[must_use]
    pub fn without(self, rule: R) -> Self {
        Self(self.0 & !(1 << rule.into()), PhantomData)
    }

    /// Is this one kept?
    #[must_use]
    pub fn keep(self, rule: R) -> bool {
        self.0 & (1 << rule.into()) != 0
    }
}

// Not derived, because the rules themselves need not have these traits.
impl<R> Clone for Rules<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Rules<R> {}

impl<R> PartialEq for Rules<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<R> Eq for Rules<R> {}

impl<R> fmt::Debug for Rules<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({:b})", self.0)
    }
}
