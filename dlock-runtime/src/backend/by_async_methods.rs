//! The trait by plain async methods: what stands in every backend that has to ask somebody.

/// Implements [`Backend`](super::Backend) by the type's own async methods of the same names.
macro_rules! backend_by_async_methods {
    (@in_turn) => {
        fn acquire_in_turn<'a>(
            &'a self,
            claim: &'a $crate::backend::Claim,
        ) -> $crate::backend::Answer<
            'a,
            Result<$crate::backend::Attempt, $crate::error::BackendError>,
        > {
            $crate::backend::Answer::from_future(self.acquire_in_turn(claim))
        }
    };
    (@sets) => {
        fn try_acquire_set<'a>(
            &'a self,
            claims: &'a [$crate::backend::Claim],
        ) -> $crate::backend::Answer<
            'a,
            Result<$crate::backend::SetAttempt, $crate::error::BackendError>,
        > {
            $crate::backend::Answer::from_future(self.try_acquire_set(claims))
        }
    };
    ($backend:ty, $kind:literal) => {
        backend_by_async_methods!($backend, $kind, |_: &Self| {
            $crate::backend::Capabilities::LEASES
        });
    };
    ($backend:ty, $kind:literal, $capabilities:expr $(, $more:ident)?) => {
        impl $crate::backend::Backend for $backend {
            fn kind(&self) -> &'static str {
                $kind
            }
            fn capabilities(&self) -> $crate::backend::Capabilities {
                ($capabilities)(self)
            }
            fn try_acquire<'a>(
                &'a self,
                claim: &'a $crate::backend::Claim,
            ) -> $crate::backend::Answer<
                'a,
                Result<$crate::backend::Attempt, $crate::error::BackendError>,
            > {
                $crate::backend::Answer::from_future(self.try_acquire(claim))
            }
            $(
                backend_by_async_methods!(@$more);
            )?
            fn renew<'a>(
                &'a self,
                claim: &'a $crate::backend::Claim,
            ) -> $crate::backend::Answer<
                'a,
                Result<$crate::backend::Renewal, $crate::error::BackendError>,
            > {
                $crate::backend::Answer::from_future(self.renew(claim))
            }
            fn release<'a>(
                &'a self,
                claim: &'a $crate::backend::Claim,
                release: $crate::backend::Release,
            ) -> $crate::backend::Answer<
                'a,
                Result<$crate::backend::Released, $crate::error::BackendError>,
            > {
                $crate::backend::Answer::from_future(self.release(claim, release))
            }
            fn watch<'a>(
                &'a self,
                key: &'a $crate::key::LockKey,
            ) -> $crate::backend::Answer<
                'a,
                Result<Box<dyn $crate::backend::Watch>, $crate::error::BackendError>,
            > {
                $crate::backend::Answer::from_future(async {
                    Ok(Box::new(self.watch(key).await?) as Box<dyn $crate::backend::Watch>)
                })
            }
            fn inspect<'a>(
                &'a self,
                key: &'a $crate::key::LockKey,
            ) -> $crate::backend::Answer<
                'a,
                Result<Option<$crate::backend::Holder>, $crate::error::BackendError>,
            > {
                $crate::backend::Answer::from_future(self.inspect(key))
            }
            fn list<'a>(
                &'a self,
                prefix: &'a str,
            ) -> $crate::backend::Answer<
                'a,
                Result<Vec<$crate::backend::LockState>, $crate::error::BackendError>,
            > {
                $crate::backend::Answer::from_future(self.list(prefix))
            }
            fn revoke<'a>(
                &'a self,
                key: &'a $crate::key::LockKey,
            ) -> $crate::backend::Answer<'a, Result<bool, $crate::error::BackendError>> {
                $crate::backend::Answer::from_future(self.revoke(key))
            }
            fn force_release<'a>(
                &'a self,
                key: &'a $crate::key::LockKey,
            ) -> $crate::backend::Answer<'a, Result<bool, $crate::error::BackendError>> {
                $crate::backend::Answer::from_future(self.force_release(key))
            }
        }
    };
}

pub(super) use backend_by_async_methods;
