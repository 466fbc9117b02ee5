//! Asks the ensemble whether nodes still exist, with one request for many callers.
//!
//! A transaction that only checks nodes changes nothing and wakes nobody, but it is committed like a write. It therefore
//! proves the session, too. Holders ask for it with each renewal. Only one round of checks is in flight at a time, and two
//! rounds start at least one [`interval`] apart. Each round checks the nodes of all callers that arrived meanwhile, so the
//! cost of keeping a session does not grow with the number of its locks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;
use zookeeper_client::Error;

use super::session::Session;
use crate::clock::Moment;

/// The most nodes, and the most bytes of paths, in one request. The servers reject requests above 1 MiB.
const MOST_NODES: usize = 256;
const MOST_BYTES: usize = 128 * 1024;

/// The checks that callers wait for.
#[derive(Debug, Default)]
pub(super) struct Checks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: Vec<Wanted>,
    /// Whether a task is asking.
    asking: bool,
    /// When the last round started.
    last: Option<Instant>,
}

#[derive(Debug)]
struct Wanted {
    path: String,
    answer: oneshot::Sender<Result<bool, Error>>,
}

/// The shortest time between the starts of two rounds.
fn interval(timeout: Duration) -> Duration {
    timeout / 24
}

impl Checks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Has the ensemble commit that this node exists unchanged since its creation. The answer is false if it does not.
    ///
    /// Cancel safe: a separate task asks, so that nobody waits for a caller that is not polled.
    pub(super) async fn has_node(self: &Arc<Self>, path: &str) -> Result<bool, Error> {
        loop {
            let (answer, told) = oneshot::channel();
            let starts = {
                let mut state = self.checks.state();
                state.wanted.push(Wanted { path: path.to_owned(), answer });
                !std::mem::replace(&mut state.asking, true)
            };
            if starts {
                tokio::spawn(Asking { session: Arc::clone(self), finished: false }.run());
            }
            // The task has ended with its runtime. Ask again from this one.
            if let Ok(told) = told.await {
                return told;
            }
        }
    }
}

/// The task that asks, as long as there are callers.
struct Asking {
    session: Arc<Session>,
    finished: bool,
}

impl Asking {
    async fn run(mut self) {
        let session = Arc::clone(&self.session);
        loop {
            let last = session.checks.state().last;
            if let Some(last) = last {
                tokio::time::sleep_until(last + interval(session.timeout)).await;
            }
            let wanted = {
                let mut state = session.checks.state();
                state.wanted.retain(|one| !one.answer.is_closed());
                if state.wanted.is_empty() {
                    state.asking = false;
                    self.finished = true;
                    return;
                }
                state.last = Some(Instant::now());
                std::mem::take(&mut state.wanted)
            };
            join_all(in_requests(wanted).into_iter().map(|some| session.ask_for(some))).await;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.finished {
            let mut state = self.session.checks.state();
            state.asking = false;
            // The waiting callers ask again.
            state.wanted.clear();
        }
    }
}

impl Session {
    async fn ask_for(&self, wanted: Vec<Wanted>) {
        let paths: Vec<_> = wanted.iter().map(|one| one.path.as_str()).collect();
        let answer = self.check(&paths).await;
        if paths.len() > 1 && matches!(answer, Ok(false)) {
            // At least one node is gone. Find out which.
            let each = wanted.into_iter().map(|one| async move {
                let answer = self.check(&[one.path.as_str()]).await;
                let _ = one.answer.send(answer);
            });
            join_all(each).await;
            return;
        }
        for one in wanted {
            // A caller that has gone does not need the answer.
            let _ = one.answer.send(answer.clone());
        }
    }

    /// Whether all of these nodes exist unchanged.
    async fn check(&self, paths: &[&str]) -> Result<bool, Error> {
        let mut check = self.client.new_multi_writer();
        for path in paths {
            check.add_check_version(path, 0)?;
        }
        let sent = Moment::now();
        let committed = check.commit();
        match self.write(sent, async { committed.await.map_err(Error::from) }).await {
            Ok(_) => Ok(true),
            Err(Error::NoNode | Error::BadVersion | Error::SessionExpired) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Splits the checks into requests of a size that the servers accept.
fn in_requests(wanted: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut requests: Vec<Vec<Wanted>> = vec![];
    let mut bytes = 0;
    for one in wanted {
        bytes += one.path.len();
        match requests.last_mut() {
            Some(last) if last.len() < MOST_NODES && bytes <= MOST_BYTES => last.push(one),
            _ => {
                bytes = one.path.len();
                requests.push(vec![one]);
            }
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[usize]) -> Vec<usize> {
        let wanted = paths.iter().map(|length| {
            let (answer, _) = oneshot::channel();
            Wanted { path: "x".repeat(*length), answer }
        });
        in_requests(wanted.collect()).iter().map(Vec::len).collect()
    }

    #[test]
    fn requests_have_a_size_that_servers_accept() {
        assert_eq!(of(&[]), Vec::<usize>::new());
        assert_eq!(of(&[10; 256]), [256]);
        assert_eq!(of(&[10; 600]), [256, 256, 88]);
        assert_eq!(of(&[MOST_BYTES / 2, MOST_BYTES / 2, 1]), [2, 1]);
        assert_eq!(of(&[MOST_BYTES * 2, 1, 1]), [1, 2]);
    }
}
