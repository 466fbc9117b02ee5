//! Logging in again after the servers have forgotten the login.
//!
//! The servers forget a login after five minutes without a request and when users or roles change. A restarted server
//! forgets the logins that are no longer in its log. Every request then fails until the process logs in again. That is
//! expensive for the servers, because they hash the password slowly on purpose. So all requests share one login, a request
//! that was refused before the latest login does not start another one, and pauses follow failed logins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::time::error::Elapsed;

use super::failure::explain;
use crate::error::BackendError;
use crate::stores::shared::outage::{Failure, Outage};
use crate::stores::shared::single_flight::SingleFlight;

/// The longest random delay before a repeated login. When users change, all processes notice at the same moment.
const SPREAD: Duration = Duration::from_millis(100);

/// The pauses between failed logins.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The process's login to the servers.
pub(super) struct Login {
    client: Client,
    hosts: String,
    /// How long one login may take.
    limit: Duration,
    has_credentials: AtomicBool,
    /// Counts the repeated logins that succeeded.
    number: AtomicU64,
    flight: SingleFlight<Result<(), Failure>>,
    outage: Outage,
}

impl Login {
    /// For a client that is logged in if it has credentials.
    pub(super) fn new(client: Client, hosts: &str, limit: Duration, has_credentials: bool) -> Self {
        Self {
            client,
            hosts: hosts.to_owned(),
            limit,
            has_credentials: AtomicBool::new(has_credentials),
            number: AtomicU64::new(0),
            flight: SingleFlight::new(),
            outage: Outage::new(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }

    /// The number of the login that a request sent now uses.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether there are credentials to log in with.
    pub(super) fn has_credentials(&self) -> bool {
        self.has_credentials.load(Ordering::Relaxed)
    }

    /// Logs in, unless this has happened since the refused login.
    pub(super) async fn again(self: &Arc<Self>, refused: u64) -> Result<(), BackendError> {
        if self.number() != refused {
            return Ok(());
        }
        let this = Arc::clone(self);
        let outcome = self.flight.join(|| async move { this.log_in(refused).await }).await;
        let ended = || Failure::transient("the login to etcd ended because its runtime shut down");
        outcome.unwrap_or_else(|| Err(ended())).map_err(BackendError::from)
    }

    async fn log_in(&self, refused: u64) -> Result<(), Failure> {
        self.outage.admit()?;
        tokio::time::sleep(SPREAD.mul_f64(rand::random_range(0.0..=1.0))).await;
        if self.number() != refused {
            return Ok(());
        }
        let answer = tokio::time::timeout(self.limit, self.client.refresh_token()).await;
        self.answered(answer).map_err(|error| {
            let failure = Failure::from(&error);
            self.outage.failed(&failure);
            failure
        })
    }

    fn answered<T>(&self, answer: Result<Result<T, Error>, Elapsed>) -> Result<(), BackendError> {
        match answer {
            Ok(Ok(_)) => {
                self.outage.over();
                self.number.fetch_add(1, Ordering::Release);
                Ok(())
            }
            Ok(Err(error)) => Err(explain(&self.hosts, REFUSED, &error)),
            Err(_) => {
                let problem = format!("etcd at {} did not answer a login in time", self.hosts);
                Err(BackendError::transient(problem))
            }
        }
    }

    /// Logs in with other credentials, and uses them from then on if that succeeds.
    pub(super) async fn update(&self, user: &str, password: &str) -> Result<(), BackendError> {
        let credentials = Some((user.to_owned(), password.to_owned()));
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(self.limit, client.update_user(credentials)).await;
        self.answered(answer)?;
        self.has_credentials.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// How messages describe a failed login.
const REFUSED: &str = "did not accept a login with these credentials";
