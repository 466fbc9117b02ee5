//! A value that is ready, or a future of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The answer of a backend: a value that is ready, or a future of it.
///
/// A ready answer needs no allocation.
#[must_use = "an answer does nothing unless it is awaited"]
pub struct Answer<'a, T>(Inner<'a, T>);

enum Inner<'a, T> {
    Ready(T),
    Pending(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
    Taken,
}

impl<'a, T> Answer<'a, T> {
    /// Creates an answer that is ready.
    pub const fn ready(value: T) -> Self {
        Self(Inner::Ready(value))
    }

    /// Creates an answer that has to be awaited.
    pub fn from_future(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(Inner::Pending(Box::pin(future)))
    }

    /// Returns whether the value is ready, so that nothing of the request is left to execute.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.0, Inner::Ready(_))
    }

    /// Takes the value if it is ready. The answer must not be polled after that.
    pub(super) fn take_ready(&mut self) -> Option<T> {
        if !self.is_ready() {
            return None;
        }
        match std::mem::replace(&mut self.0, Inner::Taken) {
            Inner::Ready(value) => Some(value),
            Inner::Pending(_) | Inner::Taken => None,
        }
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Inner::Pending(future) = &mut self.0 {
            let value = std::task::ready!(future.as_mut().poll(cx));
            self.0 = Inner::Taken;
            return Poll::Ready(value);
        }
        match std::mem::replace(&mut self.0, Inner::Taken) {
            Inner::Ready(value) => Poll::Ready(value),
            Inner::Pending(_) | Inner::Taken => panic!("an answer was polled after completion"),
        }
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ready() { "Answer(ready)" } else { "Answer(pending)" })
    }
}
