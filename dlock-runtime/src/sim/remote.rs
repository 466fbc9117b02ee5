//! Something that processes reach over the network, such as a database.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::calls::{Call, Reply, Request};
use super::host::HostId;
use super::trace;
use super::world::{self, World};
use crate::timer;

/// How long a caller waits for an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// A state on a simulated host, such as a database, that processes reach over the network.
///
/// A call takes time. Its request or its answer may be late or lost, and a request that its caller has given up, or whose
/// caller was killed, may still be executed. Calls are executed one after the other, each at one moment.
///
/// ```
/// # use dlock_runtime::sim::{self, Explorer, Remote};
/// # Explorer::new(0..5).run(|| async {
/// let stock = Remote::new("database", 1_i32);
/// let server = sim::process("server", {
///     let stock = stock.clone();
///     || async move { stock.call("sell one", |left| *left -= 1).await }
/// });
/// if let Ok(Ok(())) = server.await {
///     assert_eq!(stock.peek(|left| *left), 0);
/// }
/// # });
/// ```
pub struct Remote<T> {
    host: HostId,
    state: Arc<Mutex<T>>,
}

impl<T> Clone for Remote<T> {
    fn clone(&self) -> Self {
        Self { host: self.host, state: Arc::clone(&self.state) }
    }
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A call has no answer. It may have been executed, or may still be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated host did not answer")]
pub struct Unanswered;

impl<T: Send + 'static> Remote<T> {
    /// Puts a state on a host of its own.
    ///
    /// # Panics
    /// Outside of a simulation.
    pub fn new(name: impl Into<String>, state: T) -> Self {
        let host = world::with(|world| {
            let host = world.add_host(name.into());
            world.hosts[host].is_remote = true;
            host
        });
        Self { host, state: Arc::new(Mutex::new(state)) }
    }

    /// Calls `act` with the state, on the host, and returns what it answers. It is executed once or not at all.
    ///
    /// The timeline of a schedule that fails shows `what` and the answer.
    ///
    /// # Errors
    /// [`Unanswered`] after two seconds, or if the host has restarted.
    ///
    /// # Cancel safety
    /// Not cancel safe: the call may still be executed.
    pub async fn call<R: fmt::Debug + Send + 'static>(
        &self,
        what: impl Into<Cow<'static, str>>,
        act: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Unanswered> {
        let request = self.request(what.into(), act);
        let answer = timer::timeout(LIMIT, Call::new(self.host, request)).await;
        let Ok(Ok(reply)) = answer else {
            world::with(|world| world.note_unanswered(self.host));
            return Err(Unanswered);
        };
        reply.value.downcast::<Option<R>>().ok().and_then(|value| *value).ok_or(Unanswered)
    }

    fn request<R: fmt::Debug + Send + 'static>(
        &self,
        what: Cow<'static, str>,
        act: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Request {
        let state = Arc::clone(&self.state);
        let act = Mutex::new(Some(act));
        Request {
            digest: trace::digest(&what),
            what,
            act: Arc::new(move |_| {
                let act = act.lock().unwrap_or_else(PoisonError::into_inner).take();
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                reply(act.map(|act| act(&mut state)))
            }),
        }
    }

    /// Looks at the state without any network, for the checks of a scenario.
    pub fn peek<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl World {
    fn note_unanswered(&mut self, host: HostId) {
        if self.trace.is_recording() {
            let text = format!("{}: no answer", self.hosts[host].name);
            self.note(self.current, || text);
        }
    }
}

/// The hash covers the answer, so that a replay that differs in nothing else is noticed.
fn reply<R: fmt::Debug + Send + 'static>(answer: Option<R>) -> Reply {
    let digest = answer.as_ref().map_or(0, trace::digest);
    let is_recording = world::try_with(|world| world.trace.is_recording()).unwrap_or(false);
    let text = answer.as_ref().filter(|_| is_recording).map(|answer| format!("{answer:?}"));
    Reply { value: Box::new(answer), digest, text: text.unwrap_or_default() }
}
