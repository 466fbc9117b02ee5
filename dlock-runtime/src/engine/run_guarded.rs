//! The critical section: a body that is polled only while its lease is provably valid.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tracing::Span;

use super::hold::{Ending, Hold};
use super::nesting::Enclosure;
use super::telemetry::HoldSpan;
use crate::error::{LockError, LostReason};
use crate::guard::{LockGuard, release_all};
use crate::options::OnLost;

/// The body of a critical section, pinned by its caller. Dropping this drops the body in place,
/// with every argument it captured. It is declared after the guards, so the body is dropped before
/// they release the lock.
pub(crate) struct Section<'a, F>(Pin<&'a mut Option<F>>);

impl<'a, F: Future> Section<'a, F> {
    pub(crate) fn new(body: Pin<&'a mut Option<F>>) -> Self {
        Self(body)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.0.as_mut().as_pin_mut() {
            Some(body) => body.poll(cx),
            None => panic!("polled a body after it had ended"),
        }
    }

    fn clear(&mut self) {
        self.0.set(None);
    }
}

impl<F> Drop for Section<'_, F> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// How a body ended.
enum Outcome<T> {
    /// It returned. `Some` is the first loss that was noticed while it ran.
    Finished(T, Option<Lost>),
    /// It was stopped because a hold ended.
    Stopped(Lost),
    Panicked(Box<dyn Any + Send>),
}

impl<T> Outcome<T> {
    fn name(&self) -> &'static str {
        match self {
            Self::Finished(_, None) => "completed",
            Self::Finished(_, Some(_)) => "completed after a loss",
            Self::Stopped(Lost(_, Ending::Lost(_))) => "lost",
            Self::Stopped(Lost(_, Ending::HeldTooLong(_))) => "held too long",
            Self::Stopped(Lost(_, Ending::ShutDown)) => "shut down",
            Self::Panicked(_) => "panicked",
        }
    }
}

/// The hold that ended, and how.
struct Lost(Arc<Hold>, Ending);

impl Lost {
    /// Returns true if this ends the body too. `max_hold` and a shutdown always do, and so does the end of the outer body
    /// whose hold it shares.
    fn stops(&self, on_lost: OnLost) -> bool {
        let always = self.1.is_held() || self.1 == Ending::Lost(LostReason::OuterClosed);
        on_lost == OnLost::Cancel || always
    }
}

/// Runs the body under the guards, and releases them.
///
/// `failed` returns true if the body's own result is a failure, which is then returned even if the lock was lost.
///
/// # Errors
/// [`LockError::Lost`] or [`LockError::HeldTooLong`], depending on how the hold ended.
pub(crate) async fn run_guarded<F: Future>(
    guards: impl AsRef<[LockGuard]> + IntoIterator<Item = LockGuard>,
    on_lost: OnLost,
    body: Pin<&mut Option<F>>,
    failed: impl Fn(&F::Output) -> bool,
) -> Result<F::Output, LockError> {
    // Declared after the guards, so that the body is dropped first when this future is dropped.
    let mut section = Section::new(body);
    let span = guards.as_ref().first().map_or_else(HoldSpan::none, |first| {
        let hold = first.hold();
        let locks = || guards.as_ref().iter().map(|guard| guard.hold().labels());
        HoldSpan::begin(locks, hold.token, hold.claim.client_info.label())
    });
    let outcome = {
        let interrupted = Interrupted(guards.as_ref());
        let outcome = drive(guards.as_ref(), on_lost, &mut section, span.span()).await;
        if !matches!(outcome, Outcome::Panicked(_)) {
            interrupted.disarm();
        }
        outcome
    };
    section.clear();
    if let Some(first) = guards.as_ref().first() {
        span.end(|| first.hold().age(), outcome.name());
    }
    match outcome {
        Outcome::Finished(value, lost) => {
            let returned = release_all(guards).await;
            let lost = lost.map(|Lost(hold, ending)| hold.error(ending, true));
            match lost.or(returned.err()) {
                Some(error) if on_lost != OnLost::Keep && !failed(&value) => Err(error),
                _ => Ok(value),
            }
        }
        Outcome::Stopped(Lost(hold, ending)) => {
            // With `max_hold` or a shutdown the lease is still valid, and so are the other locks of a set. They are released here, so
            // that others, and this caller, can acquire them once the call returns.
            if ending.is_held() || guards.as_ref().len() > 1 {
                let _ = release_all(guards).await;
            }
            Err(hold.error(ending, false))
        }
        Outcome::Panicked(panic) => {
            let _ = release_all(guards).await;
            resume_unwind(panic)
        }
    }
}

/// A body that has not ended. If it is dropped or panics, what it has sent may still be executed: a lock-delay begins.
struct Interrupted<'a>(&'a [LockGuard]);

impl Interrupted<'_> {
    fn disarm(mut self) {
        self.0 = &[];
    }
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|guard| guard.hold().keep_for_grace());
    }
}

async fn drive<F: Future>(
    guards: &[LockGuard],
    on_lost: OnLost,
    section: &mut Section<'_, F>,
    span: &Span,
) -> Outcome<F::Output> {
    let mut enclosure = Enclosure::new(guards);
    let mut ended = pin!(any_ended(guards));
    let mut lost: Option<Lost> = None;
    // A body that has not started never runs without its locks, whatever its `on_lost`.
    let mut started = false;
    // Needed only after a loss that does not stop the body.
    let mut stopped = None;
    poll_fn(|cx| {
        // Check first: after a loss, only `on_lost` decides whether a running body is polled again.
        if lost.is_none()
            && let Some(ended) = first_ended(guards)
        {
            if !started || ended.stops(on_lost) {
                return Poll::Ready(Outcome::Stopped(ended));
            }
            lost = Some(ended);
        }
        started = true;
        if let Some(ended) = lost.take_if(|_| guards.iter().any(LockGuard::must_stop)) {
            return Poll::Ready(Outcome::Stopped(ended));
        }
        let _within = span.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| enclosure.scope(|| section.poll(cx))));
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(value)) => return Poll::Ready(Outcome::Finished(value, lost.take())),
            Err(panic) => return Poll::Ready(Outcome::Panicked(panic)),
        }
        // The end of a hold must wake this task even while the body is idle.
        if lost.is_none() {
            let ended = ready!(ended.as_mut().poll(cx));
            if ended.stops(on_lost) {
                return Poll::Ready(Outcome::Stopped(ended));
            }
            lost = Some(ended);
        }
        let stopped = stopped.get_or_insert_with(|| Box::pin(any_stopped(guards)));
        ready!(stopped.as_mut().poll(cx));
        match lost.take() {
            Some(ended) => Poll::Ready(Outcome::Stopped(ended)),
            None => Poll::Pending,
        }
    })
    .await
}

fn first_ended(guards: &[LockGuard]) -> Option<Lost> {
    guards.iter().find_map(|guard| {
        let ending = guard.check().err()?;
        Some(Lost(Arc::clone(guard.hold()), ending))
    })
}

/// Resolves when one of the holds ends.
async fn any_ended(guards: &[LockGuard]) -> Lost {
    match guards {
        [only] => ended(only).await,
        several => {
            let all = several.iter().map(|guard| Box::pin(ended(guard)));
            futures_util::future::select_all(all).await.0
        }
    }
}

async fn ended(guard: &LockGuard) -> Lost {
    let ending = guard.ended().await;
    Lost(Arc::clone(guard.hold()), ending)
}

/// Resolves when one of the guards requires its body to stop.
async fn any_stopped(guards: &[LockGuard]) {
    let all = guards.iter().map(|guard| Box::pin(guard.stopped()));
    futures_util::future::select_all(all).await;
}
