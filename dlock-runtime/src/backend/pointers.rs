//! `Backend` for pointers to backends.

use std::sync::Arc;

use super::{
    Answer, Answers, Attempt, Backend, Capabilities, Claim, Holder, LockState, Release, Released,
    Renewal, SetAttempt, Watch,
};
use crate::error::BackendError;
use crate::key::LockKey;

macro_rules! delegate {
    ([$($generics:tt)*] $pointer:ty) => {
        impl<$($generics)*> Backend for $pointer {
            fn kind(&self) -> &'static str {
                (**self).kind()
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
            fn try_acquire<'a>(
                &'a self,
                claim: &'a Claim,
            ) -> Answer<'a, Result<Attempt, BackendError>> {
                (**self).try_acquire(claim)
            }
            fn try_acquire_set<'a>(
                &'a self,
                claims: &'a [Claim],
            ) -> Answer<'a, Result<SetAttempt, BackendError>> {
                (**self).try_acquire_set(claims)
            }
            fn try_acquire_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Attempt> {
                (**self).try_acquire_many(claims)
            }
            fn renew_many<'a>(&'a self, claims: &'a [Claim]) -> Answers<'a, Renewal> {
                (**self).renew_many(claims)
            }
            fn release_many<'a>(
                &'a self,
                releases: &'a [(Claim, Release)],
            ) -> Answers<'a, Released> {
                (**self).release_many(releases)
            }
            fn acquire_queued<'a>(
                &'a self,
                claim: &'a Claim,
            ) -> Answer<'a, Result<Attempt, BackendError>> {
                (**self).acquire_queued(claim)
            }
            fn renew<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Result<Renewal, BackendError>> {
                (**self).renew(claim)
            }
            fn release<'a>(
                &'a self,
                claim: &'a Claim,
                release: Release,
            ) -> Answer<'a, Result<Released, BackendError>> {
                (**self).release(claim, release)
            }
            fn watch<'a>(
                &'a self,
                key: &'a LockKey,
            ) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
                (**self).watch(key)
            }
            fn watch_for<'a>(
                &'a self,
                claim: &'a Claim,
            ) -> Answer<'a, Result<Box<dyn Watch>, BackendError>> {
                (**self).watch_for(claim)
            }
            fn inspect<'a>(
                &'a self,
                key: &'a LockKey,
            ) -> Answer<'a, Result<Option<Holder>, BackendError>> {
                (**self).inspect(key)
            }
            fn list<'a>(
                &'a self,
                prefix: &'a str,
            ) -> Answer<'a, Result<Vec<LockState>, BackendError>> {
                (**self).list(prefix)
            }
            fn revoke<'a>(&'a self, key: &'a LockKey) -> Answer<'a, Result<bool, BackendError>> {
                (**self).revoke(key)
            }
            fn force_release<'a>(
                &'a self,
                key: &'a LockKey,
            ) -> Answer<'a, Result<bool, BackendError>> {
                (**self).force_release(key)
            }
        }
    };
}

// Not for every `Box<B>`: another crate may implement `AsyncBackend` for a box of its own type.
delegate!([] Box<dyn Backend>);
delegate!([B: Backend + ?Sized] Arc<B>);
