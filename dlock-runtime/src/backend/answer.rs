//! An answer that is ready, or a future of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer that is there already, or a future of it.
///
/// A backend that has its answer at once allocates nothing for it.
#[must_use = "an answer does nothing unless it is awaited"]
pub struct Answer<'a, T>(Inner<'a, T>);

enum Inner<'a, T> {
    Ready(T),
    Pending(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
    Given,
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is there.
    pub const fn ready(value: T) -> Self {
        Self(Inner::Ready(value))
    }

    /// An answer to be awaited.
    pub fn from_future(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(Inner::Pending(Box::pin(future)))
    }

    /// Is it there already? Then nothing of the request is left to happen.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.0, Inner::Ready(_))
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Inner::Pending(future) = &mut self.0 {
            let value = std::task::ready!(future.as_mut().poll(cx));
            self.0 = Inner::Given;
            return Poll::Ready(value);
        }
        match std::mem::replace(&mut self.0, Inner::Given) {
            Inner::Ready(value) => Poll::Ready(value),
            Inner::Pending(_) | Inner::Given => panic!("an answer was polled after it was given"),
        }
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ready() { "Answer(ready)" } else { "Answer(pending)" })
    }
}
