//! Something that only one thread may touch at a time.

use std::rc::Rc;

use loom::cell::UnsafeCell;

/// Loom reports two touches if nothing orders them, even if one happened to come after the other.
///
/// An `Rc`, because all threads of a model run on one.
#[derive(Clone)]
pub(super) struct Alone(Rc<UnsafeCell<()>>);

impl Alone {
    pub(super) fn new() -> Self {
        Self(Rc::new(UnsafeCell::new(())))
    }

    pub(super) fn touch(&self) {
        self.0.with_mut(|_| {});
    }
}
