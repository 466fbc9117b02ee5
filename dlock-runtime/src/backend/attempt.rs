//! What a backend answers to an acquire, a renewal and a release.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::lock_table::record;
use crate::token::FencingToken;

/// The answer to a try.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Attempt {
    /// The key is this claim's.
    #[non_exhaustive]
    Granted {
        /// Larger than that of every earlier grant of this key.
        token: FencingToken,
        /// How long the lease surely lasts, counted from *before* the request was made: the ttl less
        /// an allowance for the drift of clocks.
        validity: Duration,
        /// Another number of permits, by which somebody else counts who holds the key or waits for it.
        other_permits: Option<NonZeroU32>,
        /// See [`with_in_doubt`](Attempt::with_in_doubt).
        in_doubt: bool,
    },
    /// Somebody else's.
    #[non_exhaustive]
    Busy {
        /// When the present lease would end without a renewal, or when to look again for another reason,
        /// if the backend can tell.
        expires_in: Option<Duration>,
        /// Does the claim have a place in the store's queue now? It is released when its caller gives up.
        queued: bool,
        /// As with a grant.
        other_permits: Option<NonZeroU32>,
        /// As with a grant.
        in_doubt: bool,
    },
}

impl Attempt {
    /// A grant.
    #[must_use]
    pub const fn granted(token: FencingToken, validity: Duration) -> Self {
        Self::Granted { token, validity, other_permits: None, in_doubt: false }
    }

    /// A refusal.
    #[must_use]
    pub const fn busy(expires_in: Option<Duration>) -> Self {
        Self::Busy { expires_in, queued: false, other_permits: None, in_doubt: false }
    }

    /// A refusal, with a place in the store's queue.
    #[must_use]
    pub const fn queued(look_in: Option<Duration>) -> Self {
        Self::Busy { expires_in: look_in, queued: true, other_permits: None, in_doubt: false }
    }
}

/// The answer to a try for several keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SetAttempt {
    /// All keys are theirs.
    #[non_exhaustive]
    Granted {
        /// Each claim's token, in the order of the claims.
        tokens: Vec<FencingToken>,
        /// As with [one key](Attempt::Granted).
        validity: Duration,
        /// As with one key.
        other_permits: Option<NonZeroU32>,
        /// As with one key.
        in_doubt: bool,
    },
    /// One of them is somebody else's.
    #[non_exhaustive]
    Busy {
        /// Which one.
        at: usize,
        /// When to look again, if the backend can tell.
        expires_in: Option<Duration>,
        /// Does a claim have a place in the store's queue now?
        queued: bool,
        /// As with one key.
        other_permits: Option<NonZeroU32>,
        /// As with one key.
        in_doubt: bool,
    },
}

impl SetAttempt {
    /// A grant.
    #[must_use]
    pub const fn granted(tokens: Vec<FencingToken>, validity: Duration) -> Self {
        Self::Granted { tokens, validity, other_permits: None, in_doubt: false }
    }

    /// A refusal because of this one.
    #[must_use]
    pub const fn busy(at: usize, expires_in: Option<Duration>, queued: bool) -> Self {
        Self::Busy { at, expires_in, queued, other_permits: None, in_doubt: false }
    }

    /// The answer to a try for one key alone.
    #[cfg(feature = "redis")]
    pub(crate) fn of_one(self) -> Attempt {
        match self {
            Self::Granted { tokens, validity, other_permits, in_doubt } => {
                let token = tokens.first().copied().unwrap_or(FencingToken::new(0));
                Attempt::Granted { token, validity, other_permits, in_doubt }
            }
            Self::Busy { expires_in, queued, other_permits, in_doubt, .. } => {
                Attempt::Busy { expires_in, queued, other_permits, in_doubt }
            }
        }
    }

    /// What several entries have decided.
    pub(crate) fn of(verdict: record::SetDecision, validity: Duration) -> Self {
        match verdict {
            record::SetDecision::Granted(tokens) => {
                Self::granted(tokens.into_iter().map(FencingToken::new).collect(), validity)
            }
            record::SetDecision::Busy { at, look_in, queued } => Self::busy(at, look_in, queued),
        }
    }
}

/// What the answers for one key and for several have in common.
macro_rules! common_to_answers {
    ($answer:ident) => {
        impl $answer {
            /// The same, with the number by which somebody else counts.
            #[must_use]
            pub const fn with_other_permits(mut self, other: Option<NonZeroU32>) -> Self {
                match &mut self {
                    Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                        *other_permits = other;
                    }
                }
                self
            }

            /// The same, where another copy of this request may still be executed: the store sent it again over another
            /// connection. Its [release](Release) then sets [`late_acquire`](Release::late_acquire), whether it was granted or
            /// its caller gives up.
            #[must_use]
            pub const fn with_in_doubt(mut self, is_in_doubt: bool) -> Self {
                match &mut self {
                    Self::Granted { in_doubt, .. } | Self::Busy { in_doubt, .. } => {
                        *in_doubt = is_in_doubt
                    }
                }
                self
            }

            /// May another copy of the request still be executed?
            pub(crate) const fn in_doubt(&self) -> bool {
                match self {
                    Self::Granted { in_doubt, .. } | Self::Busy { in_doubt, .. } => *in_doubt,
                }
            }

            /// The other number of permits that somebody counts by.
            pub(crate) const fn other_permits(&self) -> Option<NonZeroU32> {
                match self {
                    Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                        *other_permits
                    }
                }
            }
        }
    };
}

common_to_answers!(Attempt);
common_to_answers!(SetAttempt);

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// The lease lasts at least so long, counted from before the request was made.
    Renewed {
        /// The ttl less an allowance for the drift of clocks.
        validity: Duration,
    },
    /// The claim holds nothing (any more).
    NotHeld,
}

/// How to give a lease back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Leave the key locked for so long, held by nobody: the rest of a `min_hold`.
    pub keep_for: Option<Duration>,
    /// A `try_acquire` of this claim was given up and may be executed later than this release: it
    /// must not grant then.
    pub late_acquire: bool,
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The lease was this claim's until now.
    Released,
    /// The claim did not hold the key.
    NotHeld,
}
