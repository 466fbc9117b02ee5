//! The rules of the protocol, each of which can be left out.

/// A rule of the protocol, or the part of one that is about safety. The letter and number are those of the protocol's
/// description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// H1: the proof of a published grant counts from the sending of the sign that it echoes. Without it, from the
    /// sending of the sign sent last.
    ProofFromEchoedSign,
    /// H1: the proof of a published grant counts from a sending. Without it, from the receipt of the grant.
    ProofFromSending,
    /// H1: the proof of a direct reply counts from the sending. Without it, from the receipt.
    ReplyFromSending,
    /// H1: the age of a sign counts only within one run of the server.
    AgeWithinOneRun,
    /// H2: a published grant is a short lease until it is renewed. Without it, a lease for the full ttl.
    ProvisionalGrant,
    /// H2: nothing shortens a lease's end; signs never write it. Without it, a sign of the owner sets the short end.
    NothingShortens,
    /// H4: any sign that finds the lease over grants. Without it, only an enqueue and the end of a lease do.
    SignsGrant,
    /// H4: heads that have not signed for long are dropped, not granted to.
    StaleHeadsAreDropped,
    /// H5: leaving removes positions and hands on grants up to its number, and no later ones.
    LeaveUpToItsNumber,
    /// H5: leaving hands on a grant.
    LeaveHandsOn,
    /// H5: a grant that nobody wants any more is released.
    UnwantedIsReleased,
    /// H6: only an enqueue creates a position. Without it, any sign does.
    OnlyEnqueueCreates,
    /// H6: an enqueue carries a deadline.
    EnqueueDeadline,
    /// H6: a note refuses what comes after the leave.
    GoneNote,
    /// H6: a process that the server does not know enqueues anew.
    UnknownEnqueuesAnew,
    /// H7: a sign that finds itself owner adopts the grant.
    SignAdopts,
    /// H8: a token is accepted once.
    TokenOnce,
    /// H8: a grant is accepted only if it echoes a sign of this wait.
    EchoOfThisWait,
    /// H9: a release compares the token. Without it, only the owner.
    ReleaseComparesToken,
    /// H9: a release compares the owner. Without it, nothing.
    ReleaseComparesOwner,
    /// H9: a renewal compares the token. Without it, only the owner.
    RenewComparesToken,
    /// H9: the server tells how an earlier lease ended.
    EndIsRecorded,
    /// Beyond H2: a wait that is given up while its grant is being renewed releases that grant by its token.
    RenewingIsReleased,
    /// Beyond H5: a leave hands on what a direct reply granted, too, until it is renewed.
    LeaveEndsDirectGrant,
    /// Beyond H8: a token that was given back is not accepted later either.
    GivenBackIsSpent,
    /// Beyond H9: the server tells how the last lease *of each process* ended, not only how the previous one did.
    EndOfEachProcess,
    /// Beyond H5 and H6: a release is also a leave, up to a number that it carries.
    ReleaseIsALeave,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::ProofFromEchoedSign,
        Self::ProofFromSending,
        Self::ReplyFromSending,
        Self::AgeWithinOneRun,
        Self::ProvisionalGrant,
        Self::NothingShortens,
        Self::SignsGrant,
        Self::StaleHeadsAreDropped,
        Self::LeaveUpToItsNumber,
        Self::LeaveHandsOn,
        Self::UnwantedIsReleased,
        Self::OnlyEnqueueCreates,
        Self::EnqueueDeadline,
        Self::GoneNote,
        Self::UnknownEnqueuesAnew,
        Self::SignAdopts,
        Self::TokenOnce,
        Self::EchoOfThisWait,
        Self::ReleaseComparesToken,
        Self::ReleaseComparesOwner,
        Self::RenewComparesToken,
        Self::EndIsRecorded,
        Self::RenewingIsReleased,
        Self::LeaveEndsDirectGrant,
        Self::GivenBackIsSpent,
        Self::EndOfEachProcess,
        Self::ReleaseIsALeave,
    ];
}

/// The rules that are kept.
pub type Rules = crate::rules::Rules<Rule>;

impl From<Rule> for u32 {
    fn from(rule: Rule) -> Self {
        rule as Self
    }
}
