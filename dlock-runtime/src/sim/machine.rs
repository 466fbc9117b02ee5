//! One simulated machine: a tokio runtime of its own whose clock stands still unless the simulation moves it.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeMetrics};
use tokio::time::{Instant, Sleep};

use super::Nanos;

thread_local! {
    /// The future that drives the runtime on this thread. It is woken when the runtime has nothing left to do.
    static DRIVER: RefCell<Option<Waker>> = const { RefCell::new(None) };
    static AT_REST: Cell<bool> = const { Cell::new(false) };
    /// The future that waits until the runtime has moved its clock on from this moment.
    static LOOKER: RefCell<Option<(Waker, Instant)>> = const { RefCell::new(None) };
}

/// A runtime with a clock that only the simulation moves.
#[derive(Debug)]
pub(super) struct Machine {
    runtime: Runtime,
    metrics: RuntimeMetrics,
    began: Instant,
}

impl Machine {
    pub(super) fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(wake_driver)
            .on_thread_unpark(wake_looker)
            .build()
            .expect("a runtime without I/O needs nothing of the system");
        let began = {
            let _entered = runtime.enter();
            Instant::now()
        };
        let metrics = runtime.metrics();
        Self { runtime, metrics, began }
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// When its clock began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Whether something outside has woken one of its tasks.
    pub(super) fn is_woken(&self) -> bool {
        self.metrics.global_queue_depth() > 0
    }

    /// Whether it has a task that a timer could wake.
    pub(super) fn has_tasks(&self) -> bool {
        self.metrics.num_alive_tasks() > 0
    }

    /// Advances the clock, and runs every task until none can go on.
    pub(super) fn run(&self, advance: Nanos) {
        self.runtime.block_on(Run { advance: Some(Duration::from_nanos(advance)) });
        DRIVER.take();
    }

    /// Advances the clock to its next timer, or past `limit` to the next whole millisecond. Returns by how much.
    ///
    /// Finds timers that the simulation does not know of. Runs no task.
    pub(super) fn advance_to_timer(&self, limit: Nanos) -> Nanos {
        self.runtime.block_on(async {
            let before = Instant::now();
            let until = pin!(tokio::time::sleep(Duration::from_nanos(limit)));
            Look { until, before }.await;
            LOOKER.take();
            super::nanos(before.elapsed())
        })
    }
}

/// Tokio calls this when no task is ready, before it would move its paused clock on.
fn wake_driver() {
    AT_REST.set(true);
    DRIVER.with_borrow(|driver| driver.iter().for_each(Waker::wake_by_ref));
}

/// Tokio calls this after it has parked. It does not move its paused clock on if something had woken it before, and
/// then parks again.
fn wake_looker() {
    LOOKER.with_borrow(|looker| {
        let moved = looker.iter().filter(|(_, before)| Instant::now() > *before);
        moved.for_each(|(looker, _)| looker.wake_by_ref());
    });
}

/// Resolves when every task has come to rest. Woken before the runtime parks, it keeps the clock from moving on.
struct Run {
    advance: Option<Duration>,
}

impl Future for Run {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(advance) = self.advance.take() else {
            // Woken by the yield below, or because nothing is ready. Timers have fired by then.
            return if AT_REST.get() { Poll::Ready(()) } else { Poll::Pending };
        };
        DRIVER.set(Some(cx.waker().clone()));
        AT_REST.set(false);
        // Yields, after which the runtime looks at its timers before it can be at rest.
        let _ = pin!(tokio::time::advance(advance)).poll(cx);
        Poll::Pending
    }
}

/// Resolves after the runtime has moved its clock on by itself, once.
struct Look<'a> {
    until: Pin<&'a mut Sleep>,
    before: Instant,
}

impl Future for Look<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() > self.before {
            return Poll::Ready(());
        }
        LOOKER.set(Some((cx.waker().clone(), self.before)));
        self.until.as_mut().poll(cx)
    }
}
