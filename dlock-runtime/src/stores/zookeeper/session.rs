//! The process's session with the ensemble: how it is created, and how its requests prove it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use zookeeper_client::{Acls, Client, Error, SessionState};

use super::batches::Wire;
use super::checks::Checks;
use super::folders::Folders;
use crate::clock::Moment;
use crate::error::BackendError;
use crate::stores::shared::batcher::Batcher;
use crate::stores::shared::proofs::Proofs;

/// How long the first connect retries while no server answers. When many processes connect at once, some of them wait
/// for their server longer than the client does, whose limit is two fifths of the session timeout.
const CONNECTING: Duration = Duration::from_secs(5);

/// The longest pause between two of these tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How to reach the ensemble, and where in it the locks are.
#[derive(Clone)]
pub(super) struct Ensemble {
    /// Hosts and ports, separated by commas. Messages show them.
    pub(super) hosts: String,
    /// Each `user:password`.
    pub(super) credentials: Vec<String>,
    pub(super) timeout: Duration,
    /// The chroot and the root folder, with which every path starts.
    pub(super) root: String,
    pub(super) acls: Acls<'static>,
}

/// One session.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) timeout: Duration,
    pub(super) root: String,
    pub(super) acls: Acls<'static>,
    proofs: Mutex<Proofs>,
    pub(super) checks: Checks,
    pub(super) creates: Batcher<Wire>,
    /// Not together with creates: a release does not wait behind thousands of acquires.
    pub(super) deletes: Batcher<Wire>,
    pub(super) folders: Mutex<Folders>,
    /// Held while a create is sent or a gate is closed.
    pub(super) sending: Mutex<()>,
    /// Set when an answer says that the session has ended. The state of the client may not show it.
    closed: AtomicBool,
}

impl Ensemble {
    /// Creates the first session, with retries, because its caller does not retry.
    pub(super) async fn first_connect(&self) -> Result<Arc<Session>, BackendError> {
        let began = tokio::time::Instant::now();
        loop {
            match self.connect().await {
                Err(error) if error.is_transient() && began.elapsed() < CONNECTING => {
                    tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..=1.0))).await;
                }
                answer => return answer,
            }
        }
    }

    pub(super) async fn connect(&self) -> Result<Arc<Session>, BackendError> {
        let mut connector =
            Client::connector().with_session_timeout(self.timeout).with_fail_eagerly();
        for credentials in &self.credentials {
            connector = connector.with_auth("digest", credentials.as_bytes());
        }
        let asked_for = Moment::now();
        let client = connector
            .connect(&self.hosts)
            .await
            .map_err(|error| self.explain("could not be reached", &error).not_sent())?;
        let timeout = client.session_timeout();
        let proofs = Mutex::new(Proofs::new(timeout, asked_for));
        let session = Arc::new_cyclic(|session| Session {
            client,
            timeout,
            root: self.root.clone(),
            acls: self.acls,
            proofs,
            checks: Checks::default(),
            creates: Batcher::new(Wire::new(Weak::clone(session))),
            deletes: Batcher::new(Wire::new(Weak::clone(session))),
            folders: Mutex::default(),
            sending: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        tokio::spawn(beat(Arc::downgrade(&session)));
        Ok(session)
    }

    pub(super) fn explain(&self, what: &str, error: &Error) -> BackendError {
        let message = format!("zookeeper at {} {what}: {error}", self.hosts);
        let passes = matches!(
            error,
            Error::ConnectionLoss
                | Error::Timeout
                | Error::NoHosts
                | Error::SessionExpired
                | Error::SessionMoved
                | Error::ClientClosed
                | Error::Throttled
                | Error::NotReadOnly
                | Error::Custom(_)
        );
        let explained = if passes {
            BackendError::transient(message)
        } else {
            BackendError::permanent(message)
        };
        explained.with_source(error.clone())
    }
}

/// Whether the server provably did not execute the request. After any other error it may have executed it, or may do so
/// later.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::NoNode
            | Error::NoAuth
            | Error::BadArguments(_)
            | Error::BadVersion
            | Error::NoChildrenForEphemerals
            | Error::NodeExists
            | Error::NotEmpty
            | Error::InvalidAcl
            | Error::AuthFailed
            | Error::SessionMoved
            | Error::NotReadOnly
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::Unimplemented
            | Error::UnexpectedErrorCode(_)
            | Error::SessionExpired
    )
}

/// Sends a small read regularly, until the session ends or nothing refers to it any more.
async fn beat(session: Weak<Session>) {
    loop {
        let Some(pause) = session.upgrade().map(|session| Proofs::beat(session.timeout)) else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(session) = session.upgrade().filter(|session| session.lives()) else { return };
        let _ = session.read(Moment::now(), session.client.check_stat("/")).await;
    }
}

impl Session {
    /// Whether it has not ended, as far as this process knows.
    pub(super) fn lives(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && !self.client.state().is_terminated()
    }

    /// How long it provably lasts.
    pub(super) fn remaining(&self) -> Duration {
        self.proofs().remaining()
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Awaits a request that a follower may answer by itself. The request was sent after this moment.
    pub(super) async fn read<T>(
        &self,
        sent: Moment,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = self.in_time(request).await;
        if answer.is_ok() {
            self.proofs().touched(sent);
        }
        answer
    }

    /// Awaits a request that the ensemble commits. The request was sent after this moment.
    pub(super) async fn write<T>(
        &self,
        sent: Moment,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = self.in_time(request).await;
        if answer.is_ok() {
            self.proofs().wrote(sent);
        }
        answer
    }

    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(self.timeout / 2, request).await;
        let answer = answer.unwrap_or(Err(Error::Timeout));
        if let Err(Error::ClientClosed | Error::SessionExpired) = &answer {
            self.closed.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Resolves when the connection or the session is lost.
    pub(super) async fn disconnected(&self) {
        let mut states = self.client.state_watcher();
        let mut state = states.state();
        while state == SessionState::SyncConnected {
            state = states.changed().await;
        }
    }
}
