//! Logging in again, when the servers no longer know us.
//!
//! What a login gives is forgotten by the servers: after five minutes in which nothing was asked for, by each one
//! that restarts, and when users or roles change. Then every request fails until somebody logs in again, which costs
//! the servers much (they hash the password, slowly on purpose). So there is one login for all who need it, none for
//! who was refused by the one before, and pauses between those that fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::time::Instant;

use super::calls::{explain, is_lasting};
use crate::backend::single_flight::SingleFlight;
use crate::backoff::Backoff;
use crate::error::BackendError;

/// Before a login after one that was forgotten: when a server restarts, all processes find that out at once.
const SPREAD: Duration = Duration::from_millis(100);

/// Between logins that fail.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Who we are to the servers.
pub(super) struct Login {
    client: Client,
    hosts: String,
    limit: Duration,
    has_credentials: AtomicBool,
    /// How many there were.
    number: AtomicU64,
    flight: SingleFlight<Result<(), Failure>>,
    failures: Mutex<Failures>,
}

struct Failures {
    /// The last one, until it is tried again.
    last: Option<(Failure, Instant)>,
    pauses: Backoff,
}

#[derive(Clone)]
struct Failure {
    message: String,
    lasts: bool,
}

impl Failures {
    const fn none() -> Self {
        Self { last: None, pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }
    }
}

impl Failure {
    fn error(self) -> BackendError {
        if self.lasts {
            BackendError::permanent(self.message)
        } else {
            BackendError::transient(self.message)
        }
    }
}

impl Login {
    /// Of a client that has logged in, if it has credentials. One login may take so long.
    pub(super) fn new(client: Client, hosts: &str, limit: Duration, has_credentials: bool) -> Self {
        Self {
            client,
            hosts: hosts.to_owned(),
            limit,
            has_credentials: AtomicBool::new(has_credentials),
            number: AtomicU64::new(0),
            flight: SingleFlight::new(),
            failures: Mutex::new(Failures::none()),
        }
    }

    /// Which login a request is sent with that is sent now.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Is there something to log in with?
    pub(super) fn has_credentials(&self) -> bool {
        self.has_credentials.load(Ordering::Relaxed)
    }

    /// Logs in, unless somebody has since this login.
    pub(super) async fn again(self: &Arc<Self>, refused: u64) -> Result<(), BackendError> {
        if self.number() != refused {
            return Ok(());
        }
        if let Some(failure) = self.lasting_failure() {
            return Err(failure.error());
        }
        let this = Arc::clone(self);
        let outcome = self.flight.join(|| async move { this.log_in(refused).await }).await;
        let ended = || Failure {
            message: format!("a login to etcd at {} ended with its runtime", self.hosts),
            lasts: false,
        };
        outcome.unwrap_or_else(|| Err(ended())).map_err(Failure::error)
    }

    async fn log_in(&self, refused: u64) -> Result<(), Failure> {
        tokio::time::sleep(SPREAD.mul_f64(rand::random_range(0.0..=1.0))).await;
        if self.number() != refused {
            return Ok(());
        }
        let answer = tokio::time::timeout(self.limit, self.client.refresh_token()).await;
        match answer {
            Ok(Ok(())) => {
                self.has_logged_in();
                return Ok(());
            }
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => {
                let message = format!("etcd at {} did not answer a login in time", self.hosts);
                Err(Failure { message, lasts: false })
            }
        }
        .inspect_err(|failure: &Failure| {
            let mut failures = self.failures();
            let until = Instant::now() + failures.pauses.pause();
            failures.last = Some((failure.clone(), until));
        })
    }

    fn has_logged_in(&self) {
        *self.failures() = Failures::none();
        self.number.fetch_add(1, Ordering::Release);
    }

    fn failed(&self, error: &Error) -> Failure {
        let message = explain(&self.hosts, REFUSED, error).to_string();
        Failure { message, lasts: is_lasting(error) }
    }

    /// Logs in as somebody else from now on, if that succeeds.
    pub(super) async fn update(&self, user: &str, password: &str) -> Result<(), BackendError> {
        let credentials = Some((user.to_owned(), password.to_owned()));
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(self.limit, client.update_user(credentials)).await;
        match answer {
            Ok(Ok(())) => {
                self.has_credentials.store(true, Ordering::Relaxed);
                self.has_logged_in();
                Ok(())
            }
            Ok(Err(error)) => Err(self.failed(&error).error()),
            Err(_) => {
                let problem = format!("etcd at {} did not answer a login in time", self.hosts);
                Err(BackendError::transient(problem))
            }
        }
    }

    /// The last failure, while it is too soon to try again.
    fn lasting_failure(&self) -> Option<Failure> {
        let failures = self.failures();
        let (failure, until) = failures.last.as_ref()?;
        (Instant::now() < *until).then(|| failure.clone())
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a login that fails is told as.
const REFUSED: &str = "was not logged in to with these credentials";
