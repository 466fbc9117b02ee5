//! The entry point of every call: nested under a hold of this task, or with its own lease.

use std::borrow::Cow;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;

use super::acquire::{acquire, acquire_set};
use super::deadline::Deadline;
use super::nesting::Inside;
use super::passing::Passable;
use super::telemetry::{self, AcquireSpan, Labels};
use super::{Engine, NamedBackend};
use crate::backend::{Claim, Mode};
use crate::client_info::ClientInfo;
use crate::clock::Moment;
use crate::error::{BackendError, HeldBy, LockError};
use crate::guard::LockGuard;
use crate::key::LockKey;
use crate::options::{Handover, LockOptions, Wait};

/// The template of a manual call that sets none.
pub(crate) const MANUAL: &str = "(manual)";

/// A request for a lock, with every option resolved.
#[derive(Debug)]
pub(crate) struct Request<'e> {
    pub(crate) backend: &'e Arc<NamedBackend>,
    pub(crate) key: LockKey,
    pub(crate) template: &'static str,
    /// The label shown to operators.
    pub(crate) label: Cow<'static, str>,
    /// The options without those that have a field of their own here: `backend`, `ttl` and `wait` are `None`.
    pub(crate) options: LockOptions,
    /// Of the options, or the registry's default. How long a grant is proof that the lock is held, less an allowance.
    pub(crate) ttl: Duration,
    /// For how much longer than the ttl the store keeps a lease that is not released.
    pub(crate) grace: Duration,
    pub(crate) wait: Wait,
    /// `OFF` for a lock whose lease is never passed on.
    handover: Handover,
}

impl<'e> Request<'e> {
    /// Fills in the registry's defaults, and checks what can be checked without a request to the store.
    pub(crate) fn new(
        engine: &'e Engine,
        key: LockKey,
        template: &'static str,
        label: Cow<'static, str>,
        options: &LockOptions,
        backend: Option<&str>,
    ) -> Result<Self, LockError> {
        key.check()?;
        let backend = engine.find(backend)?;
        let ttl = options.ttl.unwrap_or(engine.default_ttl);
        let grace = options.grace.unwrap_or_default();
        if let Some(problem) = backend.refuses(ttl, options) {
            return Err(LockError::Unsupported {
                backend: (&*backend.name).into(),
                option: problem.into(),
            });
        }
        Ok(Self {
            backend,
            key,
            template,
            label,
            options: LockOptions { backend: None, ttl: None, wait: None, ..*options },
            ttl,
            grace,
            // Longer than the lease of a holder that crashed just after a renewal.
            wait: options.wait.unwrap_or(Wait::UpTo(ttl + grace + Duration::from_secs(1))),
            handover: handover(engine, options),
        })
    }

    /// The function that asks, or what stands for it: the template of a manual call, whose label may be of any number.
    pub(super) fn site(&self) -> &'static str {
        match self.label {
            Cow::Borrowed(site) => site,
            Cow::Owned(_) => self.template,
        }
    }

    /// Is it exclusive and not fair?
    pub(super) fn is_plain(&self) -> bool {
        self.options.mode == Mode::Exclusive && !self.options.fair
    }

    /// How far its lease may be passed on.
    pub(super) fn handover(&self) -> Handover {
        self.handover
    }

    /// What it accepts from the task before it in the local queue of its key, if anything.
    pub(super) fn accepts(&self, runtime: &Handle) -> Option<Passable> {
        // A hold that is not renewed would have only what is left of the lease.
        let accepts = !self.handover.is_off() && self.options.renew;
        accepts.then(|| Passable { ttl: self.ttl, runtime: runtime.id() })
    }

    pub(super) fn labels(&self) -> Labels<'_> {
        self.backend.labels(self.template, &self.key)
    }

    pub(super) fn failed(&self, source: BackendError) -> LockError {
        LockError::Backend { key: self.key.clone(), source }
    }

    pub(super) fn granted_too_late(&self) -> LockError {
        self.failed(BackendError::transient(format!(
            "backend `{}` granted the lock, but its answer came after the lease had ended; use a longer ttl",
            self.backend.name
        )))
    }

    /// Warns once for each template if another process declares another number of permits. Each process
    /// counts by its own number.
    pub(super) fn compare_permits(&self, engine: &Engine, other: Option<NonZeroU32>) {
        if let Some(other) = other
            && engine.disagreements.note(self.backend.index, self.template)
        {
            telemetry::permits_disagree(self.labels(), self.options.mode.max_holders(), other);
        }
    }

    /// Creates a claim with a new owner id.
    pub(super) fn claim(&self, now: &Moment) -> Claim {
        let client_info = ClientInfo::since_about(self.label.clone(), now.time_of_day());
        Claim::of(self.key.clone(), self.ttl + self.grace, client_info)
            .with_mode(self.options.mode)
            .with_fair(self.options.fair)
    }
}

/// How far the lease of such a request may be passed on.
fn handover(engine: &Engine, options: &LockOptions) -> Handover {
    let is_plain = options.mode == Mode::Exclusive
        && !options.fair
        && options.min_hold.is_none()
        && options.grace.is_none();
    let handover = options.handover.unwrap_or(engine.default_handover);
    if is_plain { handover } else { Handover::OFF }
}

/// Whether a call may nest in an enclosing body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// The attribute and `.run()`, which run a body and can be nested in another one.
    Body,
    /// A bare `acquire()`. Its guard may outlive any body, so it never nests.
    Bare,
}

/// Acquires the requested lock.
pub(crate) async fn enter(
    engine: &Arc<Engine>,
    request: &Request<'_>,
    kind: CallKind,
) -> Result<LockGuard, LockError> {
    let acquiring = AcquireSpan::begin(request.labels(), vec![], request.options.skip_if_busy);
    // Pinned and polled in place, because an adapter would move these large futures.
    let mut entering = pin!(enter_or_acquire(engine, request, kind));
    let entered = poll_fn(|cx| acquiring.span().in_scope(|| entering.as_mut().poll(cx))).await;
    acquiring.end(entered.as_ref().map(LockGuard::fencing_token));
    entered
}

async fn enter_or_acquire(
    engine: &Arc<Engine>,
    request: &Request<'_>,
    kind: CallKind,
) -> Result<LockGuard, LockError> {
    // A call that needs no store, or whose store answers at once, would otherwise never yield.
    tokio::task::consume_budget().await;
    let around = match kind {
        CallKind::Body => Inside::around(engine, request),
        CallKind::Bare => None,
    };
    if let Some(inside) = around {
        if request.options.reentrant {
            return Box::pin(inside.enter(request)).await.map(LockGuard::nested);
        }
        // The holder is an enclosing body, which cannot end before this call returns.
        return Err(Deadline::new(request.wait).busy(request, HeldBy::ThisTask));
    }
    #[cfg(any(debug_assertions, feature = "lockdep"))]
    super::lock_order::note(engine, request);
    let hold = unless_shut_down(engine, request, pin!(acquire(engine, request))).await?;
    let guard = LockGuard::leased(hold);
    // Granted after the shutdown began: dropping the guard releases it.
    if engine.is_shut_down() { Err(refused(request)) } else { Ok(guard) }
}

/// Acquires several locks in one step. The requests must be sorted by key. Returns `None` if the locks have to be
/// acquired one by one, because the store has no atomic sets or an enclosing body of this task holds one of the keys.
pub(crate) async fn enter_set(
    engine: &Arc<Engine>,
    requests: &[Request<'_>],
    kind: CallKind,
) -> Option<Result<Vec<LockGuard>, LockError>> {
    let [first, _, ..] = requests else { return None };
    let nested = |request| kind == CallKind::Body && Inside::around(engine, request).is_some();
    if !first.backend.capabilities.atomic_sets || requests.iter().any(nested) {
        return None;
    }
    tokio::task::consume_budget().await;
    #[cfg(any(debug_assertions, feature = "lockdep"))]
    for request in requests {
        super::lock_order::note(engine, request);
    }
    let others = requests[1..].iter().map(Request::labels).collect();
    let span = AcquireSpan::begin(first.labels(), others, first.options.skip_if_busy);
    let mut acquiring = Box::pin(acquire_set(engine, requests));
    let acquiring = poll_fn(|cx| span.span().in_scope(|| acquiring.as_mut().poll(cx)));
    let entered = unless_shut_down(engine, first, pin!(acquiring)).await;
    let entered = entered.map(|holds| holds.into_iter().map(LockGuard::leased).collect::<Vec<_>>());
    let entered = entered.and_then(|guards| {
        // Granted after the shutdown began: dropping the guards releases them.
        if engine.is_shut_down() { Err(refused(first)) } else { Ok(guards) }
    });
    span.end(entered.as_ref().map(|guards| guards[0].fencing_token()));
    Some(entered)
}

fn refused(request: &Request<'_>) -> LockError {
    LockError::ShutDown { key: request.key.clone(), began: false }
}

/// Awaits the acquire, unless the registry is shut down first.
async fn unless_shut_down<T>(
    engine: &Engine,
    request: &Request<'_>,
    mut acquiring: Pin<&mut impl Future<Output = Result<T, LockError>>>,
) -> Result<T, LockError> {
    if engine.is_shut_down() {
        return Err(refused(request));
    }
    let mut shutting_down = pin!(engine.shut_down.cancelled());
    poll_fn(|cx| match acquiring.as_mut().poll(cx) {
        Poll::Pending => shutting_down.as_mut().poll(cx).map(|()| Err(refused(request))),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}
