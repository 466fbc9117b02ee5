//! Logging in again, when the servers no longer know us.
//!
//! What a login gives is forgotten by the servers: after five minutes in which nothing was asked for, when users or roles
//! change, and by one that restarts and no longer has it in its log. Then every request fails until somebody logs in again, which costs
//! the servers much (they hash the password, slowly on purpose). So there is one login for all who need it, none for
//! who was refused by the one before, and pauses between those that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::time::error::Elapsed;

use super::calls::explain;
use crate::error::BackendError;
use crate::stores::shared::kept_task::SingleFlight;
use crate::stores::shared::outage::{Failure, Outage};

/// Before a login after one that was forgotten: when users change, all processes find that out at once.
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
    outage: Outage,
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
            outage: Outage::new(FIRST_PAUSE, LONGEST_PAUSE),
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
        let this = Arc::clone(self);
        let outcome = self.flight.join(|| async move { this.log_in(refused).await }).await;
        let ended = || Failure::transient("a login to etcd ended with its runtime");
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

    /// Logs in as somebody else from now on, if that succeeds.
    pub(super) async fn update(&self, user: &str, password: &str) -> Result<(), BackendError> {
        let credentials = Some((user.to_owned(), password.to_owned()));
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(self.limit, client.update_user(credentials)).await;
        self.answered(answer)?;
        self.has_credentials.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// What a login that fails is told as.
const REFUSED: &str = "was not logged in to with these credentials";
