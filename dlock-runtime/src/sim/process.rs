//! Starting, awaiting and killing simulated processes.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::instance::{ProcessId, Status};
use super::machine::Machine;
use super::timeline::Kind;
use super::world::{self, Event};
use super::{nanos, store};

/// A simulated process.
///
/// Awaiting it gives what its main future returns. After that the process stays alive, like a server that waits for
/// requests, so that what it does in the background goes on. Dropping this handle changes nothing.
pub struct Process<T> {
    id: ProcessId,
    main: JoinHandle<T>,
}

/// The process was killed before its main future returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated process was killed")]
pub struct Killed;

/// Starts a process of its own, with the [backends](super::backend) of the scenario.
///
/// It has a runtime, clocks and a registry that no other process shares. In it, annotated functions,
/// [`Registry::current`](crate::Registry::current), `tokio::spawn` and tokio's timers work as usual. What it shares with
/// other processes through memory stands for something that they share in reality; use a
/// [`Remote`](super::Remote) for what is reached over a network.
///
/// A fault may kill the process, and it is not started again: see [`service`].
///
/// # Panics
/// Outside of a simulation.
pub fn process<F, Fut>(name: impl Into<String>, main: F) -> Process<Fut::Output>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: Send> + Send + 'static,
{
    let (id, main) = start(name.into(), false, main);
    Process { id, main }
}

/// Starts a process that is started again some time after it was killed, with an empty memory: `main` is called again.
///
/// # Panics
/// Outside of a simulation.
pub fn service<F, Fut>(name: impl Into<String>, main: F)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Send> + Send + 'static,
{
    start_service(name.into(), Arc::new(main));
}

fn start_service<F, Fut>(name: String, main: Arc<F>)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Send> + Send + 'static,
{
    let run = Arc::clone(&main);
    let (id, _main) = start(name.clone(), false, move || run());
    let again = Rc::new(move || start_service(name.clone(), Arc::clone(&main)));
    world::with(|world| world.processes[id].again = Some(again));
}

/// Runs the scenario itself, which no fault hits.
pub(super) fn start_scenario<F, Fut>(scenario: F) -> JoinHandle<()>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    start("scenario".to_owned(), true, scenario).1
}

/// Adds a process and spawns its main future.
fn start<F, Fut>(name: String, is_scenario: bool, main: F) -> (ProcessId, JoinHandle<Fut::Output>)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: Send> + Send + 'static,
{
    let machine = Machine::new();
    let id = world::with(|world| world.add_process(name, is_scenario));
    let registry = if is_scenario { None } else { Some(store::registry(id)) };
    let handle = machine.handle().spawn(async move { main().await });
    world::with(|world| {
        let process = &mut world.processes[id];
        process.main = Some(handle.abort_handle());
        process.machine = Some(Rc::new(machine));
        process.registry = registry;
        world.note_as(Kind::Starts, Some(id), || "starts".to_owned());
    });
    (id, handle)
}

/// Ends a process at once, as `SIGKILL` does: nothing of it is polled again, and nothing that its futures do while they
/// are dropped reaches anybody.
pub(super) fn kill_now(id: ProcessId) {
    let stopped = world::with(|world| {
        if world.processes[id].status == Status::Dead {
            return None;
        }
        world.note_as(Kind::Killed, Some(id), || "killed".to_owned());
        let again = world.processes[id].again.is_some();
        if again {
            let downtime = world.faults.downtime();
            world.after(downtime, Event::Restart { process: id });
        }
        let process = &mut world.processes[id];
        let stopped = (process.stop(), process.registry.take());
        world.current = Some(id);
        Some(stopped)
    });
    // Outside of the world, because futures that are dropped call it.
    drop(stopped);
    world::with(|world| world.current = None);
}

impl<T> Process<T> {
    /// Kills it, as `SIGKILL` does, as soon as the caller awaits something. It frees nothing.
    pub fn kill(&self) {
        let process = self.id;
        world::with(|world| world.after(0, Event::Kill { process }));
    }

    /// Stops it for this long, as `SIGSTOP` does, as soon as the caller awaits something: its clocks go on, but nothing
    /// of it runs, and messages wait for it.
    pub fn pause(&self, length: Duration) {
        let process = self.id;
        world::with(|world| world.after(0, Event::Pause { process, length: nanos(length) }));
    }
}

impl<T> Future for Process<T> {
    type Output = Result<T, Killed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // It has either returned, or panicked, which ends the schedule, or was killed.
        Poll::Ready(ready!(Pin::new(&mut self.main).poll(cx)).map_err(|_| Killed))
    }
}

impl<T> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("id", &self.id).finish_non_exhaustive()
    }
}
