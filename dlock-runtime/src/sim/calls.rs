//! Requests from processes to hosts, and the notices that hosts send of their own accord.

use std::any::Any;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::host::{HostId, Visit};
use super::world;

pub(super) type CallId = usize;
pub(super) type WatchId = usize;

/// What a host does when the request reaches it. It may be executed more than once, if the network repeats it.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) what: Cow<'static, str>,
    /// Goes into the hash of the trace.
    pub(super) digest: u64,
    pub(super) act: Arc<dyn Fn(&mut Visit) -> Reply + Send + Sync>,
}

/// What a host answers.
pub(super) struct Reply {
    pub(super) value: Box<dyn Any + Send>,
    /// Goes into the hash of the trace.
    pub(super) digest: u64,
    /// For the timeline.
    pub(super) text: String,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The host refused the connection: the request was not executed.
    Refused,
    /// The connection ended: the request may have been executed, or may still be.
    Lost,
}

/// The calls and watches of a schedule that somebody waits for.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Option<Slot<Result<Reply, Broken>>>>,
    watches: Vec<Option<Slot<()>>>,
}

struct Slot<T> {
    waker: Option<Waker>,
    value: Option<T>,
}

impl<T> Slot<T> {
    const fn new() -> Self {
        Self { waker: None, value: None }
    }

    fn fill(&mut self, value: T) {
        self.value = Some(value);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<T> {
        if let Some(value) = self.value.take() {
            return Poll::Ready(value);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Calls {
    pub(super) fn begin(&mut self) -> CallId {
        self.calls.push(Some(Slot::new()));
        self.calls.len() - 1
    }

    /// Whether somebody still waits for the answer.
    pub(super) fn is_awaited(&self, call: CallId) -> bool {
        self.calls[call].is_some()
    }

    pub(super) fn answer(&mut self, call: CallId, reply: Result<Reply, Broken>) {
        if let Some(slot) = &mut self.calls[call] {
            slot.fill(reply);
        }
    }

    pub(super) fn begin_watch(&mut self) -> WatchId {
        self.watches.push(Some(Slot::new()));
        self.watches.len() - 1
    }

    pub(super) fn notify(&mut self, watch: WatchId) {
        if let Some(slot) = &mut self.watches[watch] {
            slot.fill(());
        }
    }
}

/// A request and its answer. Sent when it is first polled; if it is dropped then, the host may still execute it.
pub(super) struct Call {
    host: HostId,
    request: Option<Request>,
    id: Option<CallId>,
}

impl Call {
    pub(super) const fn new(host: HostId, request: Request) -> Self {
        Self { host, request: Some(request), id: None }
    }
}

impl Future for Call {
    type Output = Result<Reply, Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let host = self.host;
        let request = self.request.take();
        let id = self.id;
        world::with(|world| {
            let id = id.or_else(|| Some(world.send(host, request?)));
            self.id = id;
            match id.and_then(|id| world.calls.calls[id].as_mut()) {
                Some(slot) => slot.poll(cx),
                None => Poll::Pending,
            }
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            world::try_with(|world| world.calls.calls[id] = None);
        }
    }
}

/// Where a host sends its notices.
#[derive(Debug)]
pub(super) struct Notices(WatchId);

impl Notices {
    pub(super) fn new() -> Self {
        Self(world::with(|world| world.calls.begin_watch()))
    }

    pub(super) const fn id(&self) -> WatchId {
        self.0
    }

    /// Resolves when a notice has arrived since the last one.
    pub(super) async fn next(&self) {
        std::future::poll_fn(|cx| {
            world::with(|world| match &mut world.calls.watches[self.0] {
                Some(slot) => slot.poll(cx),
                None => Poll::Pending,
            })
        })
        .await;
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        world::try_with(|world| world.calls.watches[self.0] = None);
    }
}

/// Resolves after a moment.
pub(super) async fn step() {
    let id = world::with(|world| {
        let id = world.calls.begin();
        world.resolve_soon(id);
        id
    });
    Call { host: 0, request: None, id: Some(id) }.await.ok();
}
