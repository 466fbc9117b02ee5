//! The answers of a backend to an acquire, a renewal and a release.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Claim;
use crate::lock_table::record;
use crate::token::FencingToken;

/// The answer to an acquire.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Attempt {
    /// The claim holds the key.
    #[non_exhaustive]
    Granted {
        /// Larger than the token of every earlier hold that this one excludes. Of a block, the first.
        token: FencingToken,
        /// See [`with_token_block`](Attempt::with_token_block).
        token_block: u16,
        /// How long the lease is certain to last, counted from *before* the request was made: the ttl
        /// less an allowance for clock drift.
        validity: Duration,
        /// A different number of permits, used by another holder or waiter of the key.
        other_permits: Option<NonZeroU32>,
        /// See [`with_in_doubt`](Attempt::with_in_doubt).
        in_doubt: bool,
    },
    /// Another claim holds the key, or goes first.
    #[non_exhaustive]
    Busy {
        /// When the current lease ends unless it is renewed, or when to retry for another reason, if the
        /// backend knows.
        expires_in: Option<Duration>,
        /// Whether the claim now has a position in the store's queue. If the caller gives up, the engine
        /// releases the claim, which must end that position.
        queued: bool,
        /// Same as for a grant.
        other_permits: Option<NonZeroU32>,
        /// Same as for a grant.
        in_doubt: bool,
    },
}

impl Attempt {
    /// Creates a grant.
    #[must_use]
    pub const fn granted(token: FencingToken, validity: Duration) -> Self {
        Self::Granted { token, token_block: 1, validity, other_permits: None, in_doubt: false }
    }

    /// Sets how many consecutive tokens are reserved for the lease, from `token` on. At most as many as the claim
    /// [asked for](Claim::token_block).
    ///
    /// The store must have recorded the end of the block before it answers: from then on, whatever becomes of the
    /// lease, each grant that it excludes has a larger token than the last one of the block. Once an earlier request
    /// of a claim may have been executed, the engine asks for one token only, and a repeated request of that kind
    /// gets the last token of the block.
    #[must_use]
    pub const fn with_token_block(mut self, tokens: u16) -> Self {
        if let Self::Granted { token_block, .. } = &mut self {
            *token_block = tokens;
        }
        self
    }

    /// A grant of the block of tokens that ends with this one, and is as long as the claim asks for.
    pub(crate) fn granted_up_to(last: u64, claim: &Claim, validity: Duration) -> Self {
        let block = claim.block();
        let first = last.saturating_sub(u64::from(block) - 1);
        Self::granted(FencingToken::new(first), validity).with_token_block(block)
    }

    /// Creates a refusal.
    #[must_use]
    pub const fn busy(expires_in: Option<Duration>) -> Self {
        Self::Busy { expires_in, queued: false, other_permits: None, in_doubt: false }
    }

    /// Creates a refusal with a position in the store's queue, from which the claim should ask again after
    /// `look_in`.
    #[must_use]
    pub const fn queued(retry_in: Option<Duration>) -> Self {
        Self::Busy { expires_in: retry_in, queued: true, other_permits: None, in_doubt: false }
    }
}

/// The answer to an acquire of several keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SetAttempt {
    /// The claims hold all keys.
    #[non_exhaustive]
    Granted {
        /// Each claim's token, in the order of the claims.
        tokens: Vec<FencingToken>,
        /// Same as for [one key](Attempt::Granted).
        validity: Duration,
        /// Same as for one key.
        other_permits: Option<NonZeroU32>,
        /// Same as for one key.
        in_doubt: bool,
    },
    /// One of the keys is busy.
    #[non_exhaustive]
    Busy {
        /// The index of the busy key.
        at: usize,
        /// When to retry, if the backend knows.
        expires_in: Option<Duration>,
        /// Whether a claim now has a position in the store's queue.
        queued: bool,
        /// Same as for one key.
        other_permits: Option<NonZeroU32>,
        /// Same as for one key.
        in_doubt: bool,
    },
}

impl SetAttempt {
    /// Creates a grant.
    #[must_use]
    pub const fn granted(tokens: Vec<FencingToken>, validity: Duration) -> Self {
        Self::Granted { tokens, validity, other_permits: None, in_doubt: false }
    }

    /// Creates a refusal because of the key at this index.
    #[must_use]
    pub const fn busy(at: usize, expires_in: Option<Duration>, queued: bool) -> Self {
        Self::Busy { at, expires_in, queued, other_permits: None, in_doubt: false }
    }

    /// The answer for a single key.
    #[cfg(feature = "redis")]
    pub(crate) fn of_one(self) -> Attempt {
        match self {
            Self::Granted { tokens, validity, other_permits, in_doubt } => {
                let token = tokens.first().copied().unwrap_or(FencingToken::new(0));
                Attempt::Granted { token, token_block: 1, validity, other_permits, in_doubt }
            }
            Self::Busy { expires_in, queued, other_permits, in_doubt, .. } => {
                Attempt::Busy { expires_in, queued, other_permits, in_doubt }
            }
        }
    }

    /// The answer for a decision on several records.
    pub(crate) fn of(verdict: record::SetDecision, validity: Duration) -> Self {
        match verdict {
            record::SetDecision::Granted(tokens) => {
                Self::granted(tokens.into_iter().map(FencingToken::new).collect(), validity)
            }
            record::SetDecision::Busy { at, retry_in, queued } => Self::busy(at, retry_in, queued),
        }
    }
}

/// The methods that the answers for one key and for several keys share.
macro_rules! common_to_answers {
    ($answer:ident) => {
        impl $answer {
            /// Sets the different number of permits that another holder or waiter uses.
            #[must_use]
            pub const fn with_other_permits(mut self, other: Option<NonZeroU32>) -> Self {
                match &mut self {
                    Self::Granted { other_permits, .. } | Self::Busy { other_permits, .. } => {
                        *other_permits = other;
                    }
                }
                self
            }

            /// Sets whether another copy of this request may still be executed, because the backend sent it
            /// again over another connection. The [release](Release) then sets
            /// [`late_acquire`](Release::late_acquire), whether the claim was granted or its caller gives up.
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

            /// The different number of permits that another holder or waiter uses.
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
    /// The lease lasts at least this long, counted from before the request was made.
    Renewed {
        /// The ttl less an allowance for clock drift.
        validity: Duration,
    },
    /// The claim does not hold the key, or no longer does.
    NotHeld,
}

/// How to release a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Keep the key locked for this long, held by nobody: the rest of a `min_hold`.
    pub keep_for: Option<Duration>,
    /// An acquire of this claim was abandoned and may be executed after this release. It must not
    /// be granted then.
    pub late_acquire: bool,
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The claim held the key until now.
    Released,
    /// The claim did not hold the key.
    NotHeld,
}
