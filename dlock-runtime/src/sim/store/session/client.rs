//! A process's client: the recipe of the ZooKeeper backend, with the same proofs of the session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::proved::{By, Proved};
use super::requests::{Refused, View};
use super::{Sessions, Stamp, State, Zxid};
use crate::backend::{
    AsyncBackend, Attempt, Capabilities, Claim, Holder, LockState, Release, Released, Renewal,
    Watch,
};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::sim::calls::Notices;
use crate::sim::host::Visit;
use crate::sim::store::{Connection, What, digest};
use crate::stores::shared::proofs::Proofs;
use crate::stores::shared::tombstones::Tombstones;
use crate::timer;
use crate::token::FencingToken;

/// How often a request is sent that a later one overtakes.
const TRIES: usize = 5;

/// A process's client. All its claims share one session.
pub(in crate::sim::store) struct SessionClient(Arc<Inner>);

struct Inner {
    server: Arc<Sessions>,
    connection: Connection,
    current: Mutex<Current>,
    /// Held while a session is created.
    connecting: tokio::sync::Mutex<()>,
    tombstones: Tombstones,
}

#[derive(Default)]
struct Current {
    session: Option<Arc<Proved>>,
    claims: HashMap<OwnerId, Known>,
}

/// What this process knows about a claim's entry.
#[derive(Clone)]
struct Known {
    session: Arc<Proved>,
    /// `None`: a create was sent, and the entry may exist, or may exist soon.
    zxid: Option<Zxid>,
}

impl SessionClient {
    pub(in crate::sim::store) fn new(server: Arc<Sessions>) -> Self {
        let connection = Connection { host: server.host };
        Self(Arc::new(Inner {
            server,
            connection,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            tombstones: Tombstones::default(),
        }))
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> Option<Arc<Proved>> {
        self.current().session.clone().filter(|session| session.lives())
    }

    /// The claim's entry, unless its session has ended.
    fn known(&self, owner: OwnerId) -> Option<Known> {
        self.current().claims.get(&owner).filter(|known| known.session.lives()).cloned()
    }

    fn note(&self, owner: OwnerId, known: Known) {
        self.current().claims.insert(owner, known);
    }

    fn forget(&self, owner: OwnerId) {
        self.current().claims.remove(&owner);
    }

    /// The current session, or a new one.
    async fn session(self: &Arc<Self>) -> Result<Arc<Proved>, BackendError> {
        let _connecting = self.connecting.lock().await;
        if let Some(session) = self.living() {
            return Ok(session);
        }
        let asked = Moment::now();
        let connect = self.ask("connect", 0, State::connect);
        // Nobody knows a session whose creation was not answered.
        let id = connect.await.map_err(BackendError::not_sent)?;
        let session = Arc::new(Proved::new(id, self.server.timeout, asked));
        let mut current = self.current();
        current.claims.retain(|_, known| known.session.lives());
        current.session = Some(Arc::clone(&session));
        drop(current);
        tokio::spawn(beat(Arc::downgrade(self), Arc::clone(&session)));
        Ok(session)
    }

    async fn ask<R: std::fmt::Debug + Send + 'static>(
        &self,
        name: &'static str,
        digest: u64,
        act: impl Fn(&mut State, &mut Visit) -> R + Send + Sync + 'static,
    ) -> Result<R, BackendError> {
        let what = What { name, digest, may_repeat: false };
        let answer = self.connection.ask(what, &self.server.state, act).await;
        answer.map(|answer| answer.value)
    }

    /// A request of a session, whose answer proves it.
    async fn ask_in<R: std::fmt::Debug + Send + 'static>(
        &self,
        session: &Proved,
        (name, by): (&'static str, By),
        digest: u64,
        act: impl Fn(&mut State, Stamp, &mut Visit) -> Result<R, Refused>
        + Clone
        + Send
        + Sync
        + 'static,
    ) -> Result<Result<R, Refused>, BackendError> {
        for _ in 0..TRIES {
            let (sent, stamp, act) = (Moment::now(), session.stamp(), act.clone());
            let asked = self.ask(name, digest, move |state, visit| act(state, stamp, visit));
            // Whatever becomes of this request, the claim may have an entry from an earlier one.
            let answer = asked.await.map_err(BackendError::maybe_sent)?;
            match &answer {
                Ok(_) => session.answered(sent, by),
                Err(Refused::Expired) => session.close(),
                Err(Refused::Overtaken) => continue,
            }
            return Ok(answer);
        }
        Err(BackendError::transient("the connection to the simulated store was lost"))
    }

    /// The claim's entry, which is created if there is none, and what is ahead of it.
    async fn stand_in_queue(
        self: &Arc<Self>,
        claim: &Claim,
        notices: Option<&Notices>,
    ) -> Result<(Known, Zxid, View), BackendError> {
        let watch = notices.map(Notices::id);
        let known = match self.known(claim.owner) {
            Some(known) => known,
            None => Known { session: self.session().await?, zxid: None },
        };
        let session = Arc::clone(&known.session);
        let asked = claim.clone();
        let Some(own) = known.zxid else {
            // Doubtful until the create is answered.
            self.note(claim.owner, known);
            let create = self.ask_in(
                &session,
                ("create", By::Leader),
                digest(claim),
                move |state, stamp, visit| state.create(stamp, &asked, watch, visit),
            );
            let (zxid, view) = create.await?.map_err(|refused| self.refused(claim, refused))?;
            let known = Known { session, zxid: Some(zxid) };
            self.note(claim.owner, known.clone());
            return Ok((known, zxid, view));
        };
        let look = self.ask_in(
            &session,
            ("look", By::Follower),
            digest(claim),
            move |state, stamp, visit| state.look(stamp, &asked, own, watch, visit),
        );
        let view = look.await?.map_err(|refused| self.refused(claim, refused))?;
        if !view.is_there {
            return Err(self.removed(claim));
        }
        Ok((known, own, view))
    }

    /// Nothing is left of a claim whose request was refused.
    fn refused(&self, claim: &Claim, refused: Refused) -> BackendError {
        self.forget(claim.owner);
        BackendError::transient(format!("the simulated store refused: {refused:?}"))
    }

    /// Forgets an entry that somebody removed. The next try creates another one.
    fn removed(&self, claim: &Claim) -> BackendError {
        self.forget(claim.owner);
        BackendError::transient("the claim's entry in the simulated store is gone")
    }

    /// Grants the lock to this entry, for as long as the session is proved.
    async fn grant(
        &self,
        claim: &Claim,
        session: &Proved,
        own: Zxid,
        began: Moment,
    ) -> Result<Attempt, BackendError> {
        // After a wait the session needs a new proof.
        if session.remaining() < session.timeout / 3 && !self.is_there(claim, session, own).await? {
            return Err(self.removed(claim));
        }
        Ok(Attempt::granted(FencingToken::new(own), session.lasts_from(began)))
    }

    /// Whether an entry exists. The answer proves the session.
    async fn is_there(
        &self,
        claim: &Claim,
        session: &Proved,
        own: Zxid,
    ) -> Result<bool, BackendError> {
        let key = claim.key.clone();
        let check = self.ask_in(
            session,
            ("check", By::Leader),
            digest(claim),
            move |state, stamp, visit| state.check(stamp, &key, own, visit),
        );
        Ok(check.await? == Ok(true))
    }

    /// Removes whatever may exist of a claim.
    async fn remove(&self, claim: &Claim) -> Result<bool, BackendError> {
        // What was created in a session that has ended is gone with it.
        let Some(Known { session, .. }) = self.known(claim.owner) else {
            self.forget(claim.owner);
            return Ok(false);
        };
        let (key, owner) = (claim.key.clone(), claim.owner);
        let remove = self.ask_in(
            &session,
            ("remove", By::Leader),
            digest(claim),
            move |state, stamp, visit| state.remove(stamp, &key, owner, visit),
        );
        let removed = remove.await? == Ok(true);
        self.forget(owner);
        Ok(removed)
    }
}

/// Keeps a session alive as long as claims need it, and for one timeout more.
async fn beat(inner: Weak<Inner>, session: Arc<Proved>) {
    let mut needed = Moment::now();
    loop {
        timer::sleep(Proofs::beat(session.timeout)).await;
        let Some(inner) = inner.upgrade().filter(|_| session.lives()) else { return };
        if !inner.current().claims.is_empty() {
            needed = Moment::now();
        } else if needed.elapsed() > session.timeout {
            return session.close();
        }
        let ping = |state: &mut State, stamp, visit: &mut Visit| state.ping(stamp, visit);
        let _ = inner.ask_in(&session, ("ping", By::Follower), 0, ping).await;
    }
}

impl AsyncBackend for SessionClient {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities::LEASES.with_every_kind().with_push(false).with_min_hold(false);
        able.with_queue(true).with_session(true)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        let (known, own, view) = self.0.stand_in_queue(claim, None).await?;
        if view.is_admitted {
            let granted = self.0.grant(claim, &known.session, own, began).await?;
            return Ok(granted.with_other_permits(view.other_permits));
        }
        // A try does not wait, so it leaves the queue.
        self.0.remove(claim).await?;
        Ok(Attempt::busy(None).with_other_permits(view.other_permits))
    }

    async fn acquire_queued(&self, claim: &Claim) -> Result<Attempt, BackendError> {
        if self.0.tombstones.has(claim) {
            return Ok(Attempt::busy(None));
        }
        let began = Moment::now();
        let notices = Notices::new();
        loop {
            let (known, own, view) = self.0.stand_in_queue(claim, Some(&notices)).await?;
            if view.is_admitted {
                let granted = self.0.grant(claim, &known.session, own, began).await?;
                return Ok(granted.with_other_permits(view.other_permits));
            }
            // A notice may be lost.
            let _ = timer::timeout(known.session.timeout / 3, notices.next()).await;
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal, BackendError> {
        let Some(Known { session, zxid: Some(own) }) = self.0.known(claim.owner) else {
            return Ok(Renewal::NotHeld);
        };
        let began = Moment::now();
        if !self.0.is_there(claim, &session, own).await? {
            return Ok(Renewal::NotHeld);
        }
        Ok(Renewal::Renewed { validity: session.lasts_from(began) })
    }

    async fn release(&self, claim: &Claim, release: Release) -> Result<Released, BackendError> {
        if release.late_acquire {
            self.0.tombstones.note(claim);
        }
        let removed = self.0.remove(claim).await?;
        Ok(if removed { Released::Released } else { Released::NotHeld })
    }

    async fn watch(&self, _: &LockKey) -> Result<Box<dyn Watch>, BackendError> {
        Err(BackendError::permanent("this store queues its waiters itself"))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<Holder>, BackendError> {
        let states = self.list(key.as_str()).await?;
        let state = states.into_iter().find(|state| state.key == *key);
        Ok(state.and_then(|state| state.holders.into_iter().next()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>, BackendError> {
        let prefix = prefix.to_owned();
        self.0.ask("list", 0, move |state, visit| state.list(&prefix, visit)).await
    }

    async fn revoke(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.clone();
        self.0.ask("revoke", 0, move |state, visit| state.revoke(&key, visit)).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.clone();
        self.0.ask("force-release", 0, move |state, visit| state.force_release(&key, visit)).await
    }
}
