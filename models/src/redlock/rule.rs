//! The rules of the protocol, each of which can be left out.

/// A rule of fenced Redlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A majority is one of all nodes. Without it, of those that answered.
    MajorityOfAll,
    /// Validity counts from before the request was sent. Without it, from when the hold counts.
    ProofFromSending,
    /// A hold counts once a majority has stored its very token. Without it, once a majority has granted the lock.
    WriteBack,
    /// Only nodes whose grant was heard before the largest token was determined count as having stored it.
    OnlyHeard,
    /// A node stores a raised token only while it shows this owner.
    RaiseComparesOwner,
    /// A node stores a raised token only if this very round acquired its lock.
    RaiseComparesRound,
    /// A node answers a token that is larger than its last one, also after a release.
    LastToken,
    /// A node answers a token that is at least the time. Without it, one more than its last one.
    TokenIsTime,
    /// A node ignores a proposal that is far off its own clock.
    Tolerance,
    /// A node that may have forgotten something does not count.
    Quarantine,
    /// A renewal on a node that must not count is no vote.
    QuarantinedRenewal,
    /// A request names the run of the server that was greeted, and acquires or restores nothing on another one.
    RunIsNamed,
    /// A release leaves a tombstone where it does not find its owner.
    Tombstone,
    /// A retraction leaves a tombstone on nodes that did not answer.
    RetractedTombstone,
    /// A renewal that restores a lost lock leaves a tombstone for earlier rounds.
    RenewalTombstone,
    /// A release does not end what a later round has acquired.
    ReleaseComparesRound,
    /// A renewal does not restore a lock that its owner has released.
    RenewalHeedsTombstone,
    /// A release leaves a tombstone on nodes that have not answered the renewal before it, also if it finds its owner.
    TombstoneForRenewal,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::MajorityOfAll,
        Self::ProofFromSending,
        Self::WriteBack,
        Self::OnlyHeard,
        Self::RaiseComparesOwner,
        Self::RaiseComparesRound,
        Self::LastToken,
        Self::TokenIsTime,
        Self::Tolerance,
        Self::Quarantine,
        Self::QuarantinedRenewal,
        Self::RunIsNamed,
        Self::Tombstone,
        Self::RetractedTombstone,
        Self::RenewalTombstone,
        Self::ReleaseComparesRound,
        Self::RenewalHeedsTombstone,
        Self::TombstoneForRenewal,
    ];
}

/// The rules that are kept.
pub type Rules = crate::rules::Rules<Rule>;

impl From<Rule> for u32 {
    fn from(rule: Rule) -> Self {
        rule as Self
    }
}
