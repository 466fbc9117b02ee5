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
use super::telemetry;
use crate::error::{LockError, LostReason};
use crate::guard::{LockGuard, give_all_back};
use crate::options::OnLost;

/// The body of a critical section, pinned by its caller. Dropping this drops the body in place, and
/// with it every argument it captured: before the guard, which is declared earlier, gives the lock
/// back.
pub(crate) struct Section<'a, F>(Pin<&'a mut Option<F>>);

impl<'a, F: Future> Section<'a, F> {
    pub(crate) fn new(body: Pin<&'a mut Option<F>>) -> Self {
        Self(body)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.0.as_mut().as_pin_mut() {
            Some(body) => body.poll(cx),
            None => panic!("a body was polled after it had ended"),
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
    /// By itself; with the first loss that was seen while it ran.
    Finished(T, Option<Lost>),
    /// Stopped, because the hold ended.
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
            Self::Panicked(_) => "panicked",
        }
    }
}

/// Which of the holds ended, and how.
struct Lost(Arc<Hold>, Ending);

impl Lost {
    /// Does this end the body, too? A bound on its time does in any case, and so does the end of the body that it
    /// entered under: who had let it in has left.
    fn stops(&self, on_lost: OnLost) -> bool {
        let in_any_case =
            matches!(self.1, Ending::HeldTooLong(_) | Ending::Lost(LostReason::OuterClosed));
        on_lost == OnLost::Cancel || in_any_case
    }
}

/// Runs the body under the guards and gives them back.
///
/// `failed` tells whether the body's own result is a failure: it then stands in any case.
///
/// # Errors
/// How the lock was lost, or held too long.
pub(crate) async fn run_guarded<F: Future>(
    guards: impl AsRef<[LockGuard]> + IntoIterator<Item = LockGuard>,
    on_lost: OnLost,
    body: Pin<&mut Option<F>>,
    failed: impl Fn(&F::Output) -> bool,
) -> Result<F::Output, LockError> {
    // Declared after the guards: when this future is dropped, the body goes first.
    let mut section = Section::new(body);
    let first = guards.as_ref().first().map(|guard| Arc::clone(guard.hold()));
    let span = first.as_ref().map_or_else(Span::none, |hold| {
        telemetry::holding(hold.labels(), hold.token, guards.as_ref().len())
    });
    let outcome = drive(guards.as_ref(), on_lost, &mut section, &span).await;
    section.clear();
    if let Some(hold) = &first {
        telemetry::held(&span, || hold.since.elapsed(), outcome.name());
    }
    match outcome {
        Outcome::Finished(value, lost) => {
            let returned = give_all_back(guards).await;
            let lost = lost.map(|Lost(hold, ending)| hold.error(ending, true));
            match lost.or(returned.err()) {
                Some(error) if on_lost != OnLost::Keep && !failed(&value) => Err(error),
                _ => Ok(value),
            }
        }
        Outcome::Stopped(Lost(hold, ending)) => {
            if let Ending::HeldTooLong(_) = ending {
                // The lease is still valid: others may enter as soon as the caller knows.
                let _ = give_all_back(guards).await;
            }
            Err(hold.error(ending, false))
        }
        Outcome::Panicked(panic) => {
            let _ = give_all_back(guards).await;
            resume_unwind(panic)
        }
    }
}

async fn drive<F: Future>(
    guards: &[LockGuard],
    on_lost: OnLost,
    section: &mut Section<'_, F>,
    span: &Span,
) -> Outcome<F::Output> {
    let enclosure = Enclosure::new(guards);
    let mut ended = pin!(any_ended(guards));
    let mut lost: Option<Lost> = None;
    // Only needed after a loss that the body outlives.
    let mut stopped = None;
    poll_fn(|cx| {
        // The check comes first: a body is not polled without proof.
        if lost.is_none()
            && let Some(ended) = first_ended(guards)
        {
            if ended.stops(on_lost) {
                return Poll::Ready(Outcome::Stopped(ended));
            }
            lost = Some(ended);
        }
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
        // While the body sleeps, an ending must wake this up.
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

/// Resolves when one of the guards says that its body must end.
async fn any_stopped(guards: &[LockGuard]) {
    let all = guards.iter().map(|guard| Box::pin(guard.stopped()));
    futures_util::future::select_all(all).await;
}
