//! The tasks that wait behind the front of a local queue.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tokio::runtime;

use super::super::passing::Passable;
use super::Next;
use crate::backend::Watch;
use crate::sync::{Notify, oneshot};

#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// Cancelled waiters stay here until they are skipped or swept.
    pub(super) line: VecDeque<Waiter>,
    /// The length at which cancelled waiters are swept, so that the queue stays within twice the live ones.
    sweep_at: usize,
    /// Where the store notifies this process, set up by a task that waited for the store before.
    pub(super) watch: Option<KeptWatch>,
    /// Created by a waiter whose time is up before the store has answered.
    pub(super) answer_noted: Option<Arc<Notify>>,
}

/// A watch for another task. A store may listen on the runtime where the watch began, which may end sooner than others.
pub(crate) struct KeptWatch {
    watch: Box<dyn Watch>,
    runtime: runtime::Id,
}

impl KeptWatch {
    pub(crate) fn new(watch: Box<dyn Watch>, runtime: runtime::Id) -> Self {
        Self { watch, runtime }
    }

    /// The watch, if it began on this runtime.
    pub(super) fn on(self, runtime: runtime::Id) -> Option<Box<dyn Watch>> {
        (self.runtime == runtime).then_some(self.watch)
    }
}

impl fmt::Debug for KeptWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptWatch")
    }
}

/// A task that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) sender: oneshot::Sender<Next>,
    pub(super) accepts: Option<Passable>,
}

impl Waiters {
    pub(super) const MIN_SWEEP: usize = 32;

    pub(super) fn push(&mut self, accepts: Option<Passable>) -> oneshot::Receiver<Next> {
        if self.line.len() >= self.sweep_at.max(Self::MIN_SWEEP) {
            self.line.retain(|waiter| !waiter.sender.is_closed());
            self.sweep_at = self.line.len() * 2;
        }
        let (sender, receiver) = oneshot::channel();
        self.line.push_back(Waiter { sender, accepts });
        receiver
    }
}
